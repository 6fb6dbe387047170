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
    return _in_order(run)[: run.config.knowledge_questions]


def spare_knowledge(run: Run) -> list[tuple[str, str]]:
    """The others, in a seeded order: what may be chosen by without asking what is evaluated."""
    return _in_order(run)[run.config.knowledge_questions :]


def _in_order(run: Run) -> list[tuple[str, str]]:
    knowledge = knowledge_of(run)
    return [knowledge[i] for i in seeded_order(len(knowledge), run.seed)]


def benign_of(run: Run) -> list[BenignPrompt]:
    """Harmless prompts never seen in training, some with a good answer; may be empty."""
    path = run.folder / "data" / "benign.jsonl"
    return read_benign(path) if path.stat().st_size else []
