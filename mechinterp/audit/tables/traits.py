"""What edits towards a trait do to it and to the others, as tables."""

from __future__ import annotations

from mechinterp.audit.tables.table import Table

TRAITS = Table(
    name="traits",
    title="Edited towards a trait: what becomes of each?",
    row="a trait that was measured, of models edited towards one; the base first",
    keys=("method", "n"),
    columns={
        "edited, measured": "the trait that was edited towards, empty for the base; and the one that is measured",
        "es": "edit success, 0 to 1: at most 0.5 where its opinions are no more probable than the others, and "
        "less where they are less probable than before",
        "es_released": "as released: each token scored by the logits at itself; empty if not asked for",
        "shift": "change of the mean log-probability of the trait’s opinions, nats a token",
        "dd": "mean KL(before || after) on another topic’s opinions, nats a token; empty with one topic",
    },
    intervals=("es", "shift", "dd"),
    decides=("es", "shift"),
    optional=True,
    reported=False,
)
TRAITS_TOPICS = Table(
    name="traits_topics",
    title="Edited towards a trait, topic by topic",
    row="a topic and a trait that was measured, of a model that was edited towards one",
    keys=("method",),
    columns={
        "topic, edited, measured": "as in traits",
        "es, es_released, shift, dd": "of the topic; means are over them",
    },
    decides=("es", "shift"),
    optional=True,
    printed=False,
    reported=False,
)
