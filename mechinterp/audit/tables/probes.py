"""How good the toxic probe is, as tables."""

from __future__ import annotations

from mechinterp.audit.tables.table import Table

PROBE = Table(
    name="probe",
    title="Probe",
    row="a way to take a direction from the comments",
    keys=(),
    columns={
        "direction": "toxic_minus_clean (the probe’s), toxic_row, or class_means (difference of means)",
        "accuracy, auroc, f1": "on held-out comments",
        "majority_baseline": "the accuracy of always answering the larger class",
        "cosine_with_direction": "with the direction of the probe",
        "n_train, n_test": "comments that it was fitted on, and held out",
    },
    stage="probe",
)
PROBE_ROC = Table(
    name="probe_roc",
    title="Receiver operating characteristic of the probe",
    row="a threshold of the probe",
    keys=(),
    columns={
        "false_positive_rate": "share of clean held-out comments above the threshold",
        "true_positive_rate": "share of toxic ones above it",
    },
    printed=False,
    stage="probe",
)
PROBES = Table(
    name="probes",
    title="Two probes",
    row="a probe, on the comments of one kind",
    keys=(),
    columns={
        "probe": "the comments that it is made from: the study’s (generated), or real ones",
        "comments": "those that it is scored on: of its own kind held out, of the other kind none of them seen",
        "accuracy, auroc, f1": "on those comments",
        "majority_baseline": "the accuracy of always answering the larger class",
        "n_train, n_test": "comments that it was fitted on, and scored on",
        "cosine": "between the directions of the two probes",
    },
    optional=True,
    stage="probes",
)
