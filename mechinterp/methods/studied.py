"""The methods of a study."""

METHODS = ("sft", "dpo", "dinm")
"""The checkpoints that a study compares with its vanilla model."""
