"""Tables over several checkpoints of one kind: the steps of a training run, and checkpoints whose truth is known."""

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
