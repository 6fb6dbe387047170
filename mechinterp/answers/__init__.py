"""SafeEdit's evaluation: who answers, who judges, what it does to harmless prompts, and every method side by side."""
