"""Ways to make a checkpoint: training through TRL, editing, prompts; `registry` has them all by name."""
