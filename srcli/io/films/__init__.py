"""Films in and out by PyAV; only what deals with films imports from here."""
