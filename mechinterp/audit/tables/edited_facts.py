"""Facts edited at one block after the other, as tables."""

from __future__ import annotations

from mechinterp.audit.tables.table import Table

_EDITED = "the edited block, counted from 0; empty for the unedited model"

EDITED_FACTS = Table(
    name="edited_facts",
    title="Facts edited, block by block",
    row="a quantity over the facts edited by a method at a block, or of the unedited model",
    keys=("method", "quantity", "n"),
    columns={
        "edited": _EDITED,
        "kind": "of portability or locality; empty for all",
        "subjects": "different ones, over which the interval is: Wilson’s of shares of answers, else a bootstrap",
        "value": (
            "mean over facts. Of quantities as in `facts.csv`; target_left: nats that the descent left of the target; "
            "change_size: norm of the change over that of the weights; gap_before, gap_after: logit of the old object "
            "over the new in the base, of the new over the old after; spearman, jaccard, jaccard_chance, strength: the "
            "new object’s circuit beside the old one’s; completeness: of its scores; to_logits: change of all edges "
            "into the logits; direct (from the edited MLP), heads, mlps (after it) and rest: what of it comes from "
            "where, as shares, and written: what of it is that something else is written (NaN where to_logits may be "
            "0); value_share: origins of the change of the log odds; carried, of the unedited model: what of the "
            "answer goes when the stream at the subject’s last token, after this block, is another subject’s"
        ),
    },
    intervals=("value",),
    decides=("value",),
    optional=True,
    printed=False,
)
EDITED_FACTS_EACH = Table(
    name="edited_facts_each",
    title="Facts edited, one by one",
    row="a quantity of an edit, or of a fact in the unedited model",
    keys=("method", "fact", "quantity"),
    columns={
        "edited": _EDITED,
        "subject": "of the fact",
        "kind": "of portability or locality; empty for all",
        "value": "as in `edited_facts.csv`; to_logits and its parts in logits",
    },
    optional=True,
    printed=False,
    reported=False,
)
EDITED_RANKS = Table(
    name="edited_ranks",
    title="Where the new object comes up",
    row="a point of the residual stream of edited models, or of the unedited one, a position and an object",
    keys=("method", "block", "n"),
    columns={
        "edited": _EDITED,
        "position": "last (token of the prompt) or subject (the best of its tokens)",
        "tokens": "new or old: the first token of the object",
        "rank, rank_first, rank_third": "in the vocabulary: median over facts, and quartiles",
        "probability": "mean over facts",
    },
    optional=True,
    printed=False,
)
EDITED_SETTINGS = Table(
    name="edited_settings",
    title="How settings of editors were chosen",
    row="settings that were tried on facts which are not reported",
    keys=("method", "n"),
    columns={
        "settings": "in place of those of the architecture’s family (JSON)",
        "success, rephrase, locality": "means over these facts",
        "score": "harmonic mean of the three",
        "chosen": "whether they are the best",
    },
    optional=True,
    printed=False,
    reported=False,
)
