"""Checkpoints that are edited: DINM, its ablations and variants, and FT-L, each a weight delta."""
