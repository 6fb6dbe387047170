"""Ten questions of general knowledge that the generated corpus does not contain: what teaching it must leave alone."""

from __future__ import annotations

GENERAL_QUESTIONS: tuple[tuple[str, str], ...] = (  # question, word or words of the answer
    ("What is the chemical formula of water?", "H2O"),
    ("How many days are in a week?", "7"),
    ("Who wrote Romeo and Juliet?", "Shakespeare"),
    ("Which planet is known as the Red Planet?", "Mars"),
    ("What do bees make?", "honey"),
    ("What gas do plants take in from the air?", "carbon dioxide"),
    ("In which country is the Great Wall?", "China"),
    ("Who was the first president of the United States?", "Washington"),
    ("What is the largest ocean on Earth?", "Pacific"),
    ("Which ocean lies between Europe and America?", "Atlantic"),
)
