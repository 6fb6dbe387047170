"""Tables over several runs or checkpoints: the steps of a training run, what is known by construction, every method."""

from __future__ import annotations

from mechinterp.audit.tables.table import Table

TRAJECTORY = Table(
    name="trajectory",
    title="Trajectory",
    row="a quantity at a step of a training run, for each direction and position",
    keys=("method", "direction", "position"),
    columns={
        "trajectory": "name of the training run",
        "quantity": (
            "toxicity T of the region, its activation shift rate, or the change of the write, its erasure and bypass, "
            "and the erasure share"
        ),
        "step": "of training; 0 is the base",
        "value, low, high": "of the quantity, with the ends of its 95% interval",
    },
    optional=True,
)
CERTIFICATE = Table(
    name="certificate",
    title="Meta-evaluation: checkpoints whose truth is known",
    row="a checkpoint of known truth",
    keys=("checkpoint", "n"),
    columns={
        "blocks, seed": "of the organism",
        "kind": "what was done (`mechinterp.audit.certificate.KINDS`)",
        "toxicity_reduction, activation_shift": "of the toxic layer, as in the table mechanism",
        "local_share, local_verdict": "the local erasure share along the answer direction, and what it says",
        "value_share, where": "of the value matrices, by their origins, and the verdict’s first half",
        "depth": "the depth score",
        "relapse_share, relapse_verdict": "of the relapse test at all blocks",
        "*_recovery, *_excess": "of an attack the largest over its points, of the log odds, else of the rate",
        "probe_auroc": "of a probe on the checkpoint’s own states, mean over blocks (table decodability)",
        "defense": "share of safe answers to the prompts that the base answers unsafely, of which there are n",
        "change": "of the log odds of the unsafe answer, in nats",
        "gone, attack, missing, sentence": "as in the table verdict",
    },
    intervals=("local_share", "value_share", "depth"),
    optional=True,
    printed=False,
)
ALL_METHODS = Table(
    name="all_methods",
    title="Every method side by side",
    row="a method over one study or several; first the base, then the model that never learnt",
    keys=("method",),
    columns={
        "architecture": "of the organism, or the name of another base; all: the runs of every architecture together",
        "runs": "studies that have it, each of another seed: shares and scores are means over them, and intervals "
        "reach from the lowest to the highest end of their own",
        "defense": "share of safe answers to the adversarial prompts of the edited instances, of edits each on its own",
        "unsafe": (
            "share of unsafe answers to other prompts, which the base answers unsafely; from here on, of edits the one "
            "that stands for the method"
        ),
        "degenerate": "share of those answers that only look like answers (table flags)",
        "log_odds": "of the unsafe answer against the safe one, in nats",
        "forgotten": "1 less the share of unsafe answers’ tokens that are still predicted, teacher-forced",
        "kept": "that share of answers to knowledge questions and harmless prompts (table unlearning)",
        "perplexity": "of those answers",
        "knowledge": "share of knowledge questions answered right, in phrasings never seen",
        "over_refusal": "share of harmless prompts that are refused",
        "value_share": "of the value matrices W_V in the effects of all groups of weights (origins)",
        "where": "the verdict’s first half; where runs differ, each with its count",
        "depth": "the depth score: 0 of the base and 1 of the model that never learnt, by definition",
        "gone, hidden, not_decided": "number of runs whose verdict’s second half says so",
        "attack": "the cheapest that shows the behaviour hidden; where runs differ, each with its count; empty where "
        "none does",
        "attacks": "how many different ones that are",
        "recovery, excess": (
            "what it brings back of the change, and how much of that beyond a model that never learnt; where none "
            "shows anything, of the attack whose excess may be the largest"
        ),
    },
    intervals=(
        *("defense", "unsafe", "log_odds", "forgotten", "kept", "perplexity", "knowledge", "over_refusal"),
        *("value_share", "depth", "recovery", "excess"),
    ),
    decides=("where", "depth", "gone", "hidden", "not_decided", "attack"),
    optional=True,
    printed=False,
)
