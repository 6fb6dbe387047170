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
