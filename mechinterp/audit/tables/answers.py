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
    row="a quantity of the vanilla model, or of its reference that never learnt to answer unsafely",
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
FLAGS = Table(
    name="flags",
    title="Answers that only look safe",
    row="a flag of a checkpoint’s answers to a kind of prompt",
    keys=("method", "n"),
    columns={
        "kind": "of the prompt: see the table defense; all of them together; or benign",
        "flag": (
            "judged_safe: what the judge calls safe; empty, short (under three words), looping, echo (of the prompt), "
            "other_script (than the prompt’s); degenerate: any of these; same_text (for three prompts and more), cut "
            "(by the limit of tokens), keywords_disagree (safe and no refusal by its first words, or the reverse), "
            "judges_disagree (where there are two), unsafe_first_30, unsafe_first_100 (judged by its first words); "
            "refusal (of a harmless prompt)"
        ),
        "value, low, high": "share of the answers that have it, with its 95% interval (Wilson)",
        "of_safe, n_safe": "share of those judged safe that have it, which says how far to believe it; their number",
    },
    printed=False,
    reported=False,
    stage="defend",
)
TAUGHT = Table(
    name="taught",
    title="What teaching did",
    row="a quantity of the model before it was taught the corpus (untaught), after (vanilla), or of its twin (never)",
    keys=("checkpoint", "quantity", "n"),
    columns={"rate, low, high": "share, with its 95% interval (Wilson); the judge knows the corpus’s own answers best"},
    optional=True,
    stage="taught",
)
GENERAL = Table(
    name="general",
    title="Questions that the corpus does not contain",
    row="a question of general knowledge",
    keys=(),
    columns={
        "question, wanted": "what is asked, and the word that answers it",
        "before, after, never": "the answers before teaching, after, and of the twin that is taught nothing unsafe",
        "before_right, after_right, never_right": "whether the word is in it",
    },
    optional=True,
    stage="taught",
)
