"""The parts of the TensorRT backend: which flavour, building, keeping and running engines."""
