"""Many pictures in, many pictures out: find the inputs, name the outputs, keep every stage busy."""
