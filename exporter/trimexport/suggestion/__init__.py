"""Which words to read for the labels: compare them on examples."""
