"""The trimmed model with its prompt inside, as an ONNX graph."""
