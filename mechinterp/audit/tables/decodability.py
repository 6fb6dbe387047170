"""What can be read off a checkpoint's states, as a table."""

from __future__ import annotations

from mechinterp.audit.tables.table import Table

DECODABILITY = Table(
    name="decodability",
    title="Is it still there to be read?",
    row="a block of a checkpoint: the base, the tuned ones, never (which never learnt), random (of random weights)",
    keys=("method", "block", "n"),
    columns={
        "auroc": (
            "of a probe trained on the checkpoint’s own states after the block, at the last prompt token, for prompts "
            "that the base answers unsafely against the rest; on categories that it was not trained on"
        ),
        "words": "the same of which words occur in the prompt: what needs no model",
        "above_words": "auroc less words, on the same prompts",
        "shuffled": "the same of a probe trained and scored on shuffled labels: 0.5 but for chance",
        "rank_attention, rank_middle, rank_mlp, rank_block": (
            "median rank, in the checkpoint’s logit lens, of the token with which the base begins its own unsafe "
            "answer: at what the attention writes, between attention and MLP, at what the MLP writes, and after the "
            "block; 1 is what would be said"
        ),
        "n_unsafe": "prompts that the base answers unsafely, which the ranks are of",
        "reason": "why there is no auroc",
    },
    intervals=(
        *("auroc", "above_words", "shuffled"),
        *("rank_attention", "rank_middle", "rank_mlp", "rank_block"),
    ),
    decides=("above_words", "rank_block"),
    optional=True,
    printed=False,
    stage="decode",
)
