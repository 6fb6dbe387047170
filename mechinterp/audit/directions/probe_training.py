"""Train the toxic probe of a model on labelled comments."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.data.comments import Comment
from mechinterp.data.counting import many
from mechinterp.data.storage.tables import write_table
from mechinterp.measures.splitting import Distinct
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import resid_post
from mechinterp.models.passes.recording import record_all

_logger = logging.getLogger(__name__)


def fit_probe(
    checkpoint: Checkpoint,
    comments: Sequence[Comment],
    *,
    seed: int,
    final_norm: bool = False,
    truncate: bool = False,
    without_sinks: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ToxicProbe:
    """Train a toxic probe on the mean residual stream of comments, see `read_by`.

    So no text that it is scored on is one that it was trained on.
    """
    taken: dict[str, Any] = {"final_norm": final_norm, "without_sinks": without_sinks}
    read = read_by(checkpoint, comments, truncate=truncate, progress=progress, **taken)
    return probe_of(checkpoint, *read, seed=seed, **taken)


def probe_of(
    checkpoint: Checkpoint,
    features: Float[Tensor, "comment d_model"],
    toxic: Bool[Tensor, " comment"],
    *,
    seed: int,
    final_norm: bool = False,
    without_sinks: bool = False,
) -> ToxicProbe:
    """The probe trained on what `read_by` gives."""
    probe = ToxicProbe.fit(features, toxic, seed=seed, final_norm=final_norm, fingerprint=checkpoint.fingerprint)
    return replace(probe, tokenizer=checkpoint.tokenizer_fingerprint, without_sinks=without_sinks)


def read_by(
    checkpoint: Checkpoint,
    comments: Sequence[Comment],
    *,
    final_norm: bool = False,
    truncate: bool = False,
    without_sinks: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Float[Tensor, "comment d_model"], Bool[Tensor, " comment"]]:
    """What a probe of the checkpoint reads of comments, each text once, and whether each is toxic.

    Repeated texts and contradictory labels are counted in warnings; of contradictory labels the more frequent one
    counts.

    Args:
        final_norm: after the final norm.
        truncate: comments that exceed the context lose their left end; otherwise an error.
        without_sinks: the means are over tokens without massive activations, see `models.passes.sinks`.
    """
    hook = "ln_final.hook_out" if final_norm else resid_post(checkpoint.n_blocks - 1)
    distinct = Distinct.of([comment.text for comment in comments], [comment.toxic for comment in comments])
    distinct.warn_of_repeats(_logger, many(len(comments), "comment"))
    distinct.warn_of_contradictions(_logger, many(len(comments), "comment"))
    texts = [comments[row].text for row in distinct.rows]
    settings: dict[str, Any] = {"truncate": truncate, "without_sinks": without_sinks, "progress": progress}
    features = record_all(checkpoint, texts, [hook], position="mean", **settings)[hook]
    return features, torch.tensor(distinct.labels, dtype=torch.bool)


def probe_tables_of(path: Path) -> tuple[Path, Path]:
    """The places of a probe's tables beside its file: `NAME.probe.csv` and `NAME.probe_roc.csv` of NAME.safetensors."""
    name = path.name.removesuffix(".safetensors")
    return path.with_name(f"{name}.probe.csv"), path.with_name(f"{name}.probe_roc.csv")


def write_probe_tables(probe: ToxicProbe, scores_at: Path, roc_at: Path) -> None:
    """Write the tables `probe` (a row per way to take the direction) and `probe_roc`."""
    write_table(scores_at, probe.table)
    roc = {"false_positive_rate": probe.roc[0].numpy(), "true_positive_rate": probe.roc[1].numpy()}
    write_table(roc_at, pd.DataFrame(roc))
