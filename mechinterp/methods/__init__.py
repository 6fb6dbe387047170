"""Ways to make a checkpoint: training through TRL, editing, unlearning, prompts; `registry` has them all by name."""
