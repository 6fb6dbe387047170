"""How deep a change goes, as tables."""

from __future__ import annotations

from mechinterp.audit.tables.table import Table

DEPTH = Table(
    name="depth",
    title="How deep does the change go?",
    row="a tuned checkpoint",
    keys=("method", "n"),
    columns={
        "score": (
            "how far its states went from the base’s towards those of a model that never learnt the behaviour: 0 "
            "untouched, 1 as if never learnt; empty without one, and where it is undefined"
        ),
        "blocks": "how many blocks the score counts: after which the state of the model that never learnt takes more "
        "than 0.05 nats a token from the base’s unsafe answers",
        "reason": "why there is no score",
    },
    intervals=("score",),
    decides=("score", "reason"),
    stage="depth",
)
DEPTH_BLOCKS = Table(
    name="depth_blocks",
    title="Depth, block by block",
    row="a block of a tuned checkpoint",
    keys=("method", "block", "n"),
    columns={
        "never": (
            "what the base’s unsafe answer loses when the base goes on from the state of a model that never learnt "
            "after this block; mean log-probability of its first tokens, nats a token"
        ),
        "tuned": "the same with the tuned checkpoint’s state",
        "ratio": "tuned / never, not clipped: 0 the base’s state, 1 as if never learnt; empty where never is too small",
        "counts": "whether the score counts the block: never above 0.05",
    },
    intervals=("never", "tuned", "ratio"),
    decides=("ratio", "counts"),
    optional=True,
    printed=False,
    stage="depth",
)
