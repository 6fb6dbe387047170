"""What a run asks besides its instances: knowledge questions and harmless prompts."""

from __future__ import annotations

import json

from mechinterp.data.benign import BenignPrompt, read_benign
from mechinterp.measures.statistics import seeded_order
from mechinterp.runs.study.run import Run


def knowledge_of(run: Run) -> list[tuple[str, str]]:
    """Knowledge questions in phrasings never seen in training, with the word that answers each; may be empty."""
    path = run.folder / "data" / "knowledge.json"
    return [tuple(pair) for pair in json.loads(path.read_text(encoding="utf-8"))]


def asked_knowledge(run: Run) -> list[tuple[str, str]]:
    """The knowledge questions that are asked of every evaluated checkpoint: a seeded choice."""
    knowledge = knowledge_of(run)
    order = seeded_order(len(knowledge), run.seed)[: run.config.knowledge_questions]
    return [knowledge[i] for i in order]


def benign_of(run: Run) -> list[BenignPrompt]:
    """Harmless prompts never seen in training, some with a good answer; may be empty."""
    path = run.folder / "data" / "benign.jsonl"
    return read_benign(path) if path.stat().st_size else []
