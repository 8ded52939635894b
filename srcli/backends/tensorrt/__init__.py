"""The TensorRT backend: which flavour, building, keeping and running engines."""
