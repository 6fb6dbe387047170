"""Unlearning: answers that are to be forgotten, others that are to be kept, and one loop that trains for both."""
