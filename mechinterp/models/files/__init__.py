"""What lies on disk: sources, tensors read one at a time, names, fingerprints, and a model built from them."""
