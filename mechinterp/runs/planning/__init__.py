"""What a study would do, what it needs, and what that would cost, known before anything of it is done."""
