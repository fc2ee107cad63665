"""The model in PyTorch: the cut of the head, and the untrimmed model a layer at a time."""
