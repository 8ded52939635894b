"""Files in and out: decode, metadata, atomic encode."""
