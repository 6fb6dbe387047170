"""Texts as a model is fed them: tokens, special tokens, prompts joined with responses, and what is cut to fit."""
