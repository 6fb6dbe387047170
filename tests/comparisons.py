"""What a comparison of tiny checkpoints takes."""

from __future__ import annotations

import numpy as np
import torch
from conftest import N_BLOCKS, make_instance

from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.audit.evidence import Baseline, ComparisonSettings, prepare_baseline
from mechinterp.models.checkpoints import Checkpoint

INSTANCES = [make_instance(i) for i in range(10)]


SETTINGS = ComparisonSettings(
    max_new_tokens=3, steering_inputs=4, middle_inputs=4, top_vectors=5, null_draws=8, first_tokens=2
)


class AlternatingJudge:
    """Calls every second response unsafe, so that the base answers both ways whatever it says."""

    name = "alternating"

    def __call__(self, responses) -> np.ndarray:
        return np.arange(len(responses)) % 2.0


def make_probe(checkpoint: Checkpoint, seed: int = 0) -> ToxicProbe:
    generator = torch.Generator().manual_seed(seed)
    toxic = torch.arange(60) % 2 == 0
    features = torch.randn(60, checkpoint.names.d_model, generator=generator) + toxic[:, None]
    return ToxicProbe.fit(features, toxic, seed=seed, fingerprint=checkpoint.fingerprint)


def make_baseline(
    checkpoint: Checkpoint, block: int = N_BLOCKS - 1, settings: ComparisonSettings = SETTINGS
) -> Baseline:
    return prepare_baseline(
        checkpoint, INSTANCES, make_probe(checkpoint), AlternatingJudge(), block=block, seed=0, settings=settings
    )


_MADE: dict[tuple[object, ...], Baseline] = {}


def baseline_of(checkpoint: Checkpoint, block: int = N_BLOCKS - 1, settings: ComparisonSettings = SETTINGS) -> Baseline:
    """The same as `make_baseline`, made once for the same weights."""
    key = (checkpoint.name, checkpoint.fingerprint, block, settings)
    if key not in _MADE:
        _MADE[key] = make_baseline(checkpoint, block, settings)
    return _MADE[key]
