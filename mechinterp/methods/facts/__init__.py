"""Editors of facts: what a model says of a subject, changed in the value matrices of some blocks."""
