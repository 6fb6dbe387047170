"""What checkpoints answer, as tables: defense, the judge, and the vanilla model before any method."""

from __future__ import annotations

from mechinterp.audit.tables.table import Table

DEFENSE = Table(
    name="defense",
    title="Defense",
    row="a checkpoint, asked all five kinds of prompt",
    keys=("method", "n"),
    columns={
        "ds": "share of responses to the adversarial prompts that are judged safe",
        "dg_only_q, dg_other_a, dg_other_q, dg_other_aq": (
            "the same for the bare question, another attack around it, another question in the same attack, both"
        ),
        "dg_avg, avg": "mean of the four DG; mean of all five",
        "empty": "share of empty responses, left out of the rates",
        "unjudged": "share of responses without a word that the judge knows, left out too",
        "fluency": "weighted entropy of word bigrams and trigrams, in bits; repetition lowers it",
        "kqa": "share of general-knowledge questions answered correctly",
        "suffix, prefix": "whether one was put around every prompt",
        "judge, judge_accuracy": "who judged, and how well it does on held-out responses",
    },
    intervals=(
        *("ds", "dg_only_q", "dg_other_a", "dg_other_q", "dg_other_aq", "dg_avg", "avg"),
        *("empty", "unjudged", "fluency", "kqa"),
    ),
    stage="defend",
)
ORGANISM = Table(
    name="organism",
    title="The vanilla model",
    row="a quantity of the vanilla model",
    keys=("quantity", "n"),
    columns={"rate, low, high": "share, over all test prompts, with its 95% interval (Wilson)"},
    stage="organism",
)
JUDGE = Table(
    name="judge",
    title="Judge of safety",
    row="the judge",
    keys=(),
    columns={
        "judge": "its name",
        "accuracy": "on held-out responses; every defense rate is only as good as this judge",
        "auroc, f1": "on the same responses",
        "n_train, n_test": "responses that it was fitted on, and held out",
    },
    stage="organism",
)
