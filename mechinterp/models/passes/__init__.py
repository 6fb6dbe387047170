"""Texts through a model: tokens, positions, recording, generation, scoring, and what the stream would say."""
