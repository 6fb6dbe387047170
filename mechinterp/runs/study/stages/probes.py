"""Stage `probes`: a second probe, of real comments, and what each of the two makes of the other's."""

from __future__ import annotations

from functools import partial

import pandas as pd
import torch

from mechinterp.audit.directions.probe import ProbeScores, ToxicProbe
from mechinterp.audit.directions.probe_training import probe_of, read_by
from mechinterp.data.comments import read_comments, share_of
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.checkpoints import checkpoint_of
from mechinterp.runs.study.run import Run

OTHERS = 400
"""Generated comments, at most, on which the probe of real ones is tried."""


def make(run: Run, reporter: Reporter) -> None:
    """`probe_real.safetensors` and `probes.csv`: a row for each probe on each kind of comments."""
    files, config = run.config.comments, run.config
    assert files is not None
    real = read_comments(files.file, text_column=files.text_column, label_column=files.label_column)
    real = share_of(real, files.max_comments, run.seed)
    vanilla = checkpoint_of(run, "vanilla")
    first = ToxicProbe.load(run.folder / "probe.safetensors")
    norm, left_out = config.final_norm, config.without_sinks
    reading = partial(read_by, vanilla, final_norm=norm, truncate=config.truncate, without_sinks=left_out)
    seen = reading(real, progress=reporter.progress("probes: reading real comments"))
    second = probe_of(vanilla, *seen, seed=run.seed, final_norm=norm, without_sinks=left_out)
    second.save(run.folder / "probe_real.safetensors")
    generated = share_of(read_comments(run.folder / "data" / "comments.csv"), OTHERS, run.seed)
    rows = [
        ("generated", "generated", first.scores[0]),
        ("generated", "real", first.scores_on(*seen)),
        ("real", "generated", second.scores_on(*reading(generated))),
        ("real", "real", second.scores[0]),
    ]
    cosine = float(torch.cosine_similarity(first.direction, second.direction, dim=0))
    table = [{"probe": probe, "comments": on, **_shown(scores), "cosine": cosine} for probe, on, scores in rows]
    run.write_table("probes", pd.DataFrame(table))


def _shown(scores: ProbeScores) -> dict[str, float]:
    names = ("accuracy", "auroc", "f1", "majority_baseline", "n_train", "n_test")
    return {name: getattr(scores, name) for name in names}
