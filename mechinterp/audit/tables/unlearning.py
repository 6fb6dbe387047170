"""Unlearning, as tables: where forgetting and keeping part, and what is left of either."""

from __future__ import annotations

from mechinterp.audit.tables.table import Table

GRADIENT_REGION = Table(
    name="gradient_region",
    title="Where the gradients of forgetting and keeping part",
    row="a tensor, a block or a neuron",
    keys=("block", "neuron"),
    columns={
        "name": "of the tensor, as the model or an adapter has it; of a block or a neuron its place",
        "component": "its place in the block; empty for a whole block",
        "entries": "numbers in it",
        "cosine": "between the mean gradients of what is to be forgotten and to be kept; empty where one is zero",
        "magnitude, retain_magnitude": "mean absolute gradient of the one and of the other",
        "located": "whether the cosine lies below and the magnitude above the thresholds",
    },
    optional=True,
    printed=False,
    reported=False,
)
UNLEARNING = Table(
    name="unlearning",
    title="What is forgotten, and what is kept",
    row="a quantity of a checkpoint, of what is to be forgotten or kept",
    keys=("method", "quantity", "n"),
    columns={
        "scope": "forget, retain, or both together",
        "value": (
            "success: 1 less the accuracy of what is to be forgotten, the accuracy of what is to be kept, the mean of "
            "both; accuracy: share of the answers’ tokens that are the most probable ones, teacher-forced; logprob: "
            "mean over answers of the mean over tokens; perplexity: exp of minus that; perplexity_of_tokens: of the "
            "mean over all tokens; forced_rouge: ROUGE-L of the most probable tokens, teacher-forced, which nobody "
            "said; said_rouge: of what the checkpoint says by itself; said_answer: whether the answer is in that; "
            "degenerate, same_text: whether that only looks like an answer (table flags)"
        ),
        "unit": "share, nats or 1",
    },
    intervals=("value",),
    optional=True,
    printed=False,
    reported=False,
)
UNLEARNING_ANSWERS = Table(
    name="unlearning_answers",
    title="Answers to what is to be forgotten and kept",
    row="a question, asked of a checkpoint",
    keys=("method",),
    columns={
        "scope": "forget or retain",
        "prompt, answer": "the question, and the answer that is to be forgotten or kept",
        "said": "what the checkpoint says by itself",
        "forced": "the most probable tokens in the places of the answer’s, teacher-forced, in words",
        "flags": "of what is said by itself: empty, short, looping, echo, other_script, same_text",
        "accuracy, forced_rouge": "share of the answer’s tokens that are the most probable; ROUGE-L of those tokens",
        "logprob": "mean over the answer’s tokens, in nats",
        "said_rouge, said_answer": "of what is said by itself: ROUGE-L, and whether the answer is in it",
    },
    optional=True,
    printed=False,
    reported=False,
)
