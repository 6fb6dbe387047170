"""Does the instrument tell the truth? Every measure on checkpoints whose truth is known by construction."""
