"""What graphs for TensorRT must keep to, and how an engine is built of one."""
