"""Whether the directions are in play in the base: without that, no decomposition along them explains anything."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch

from mechinterp.audit.evidence import Baseline
from mechinterp.measures.statistics import auroc, bootstrap, compare_with_null, random_directions
from mechinterp.measures.verdict import Validity


def check_directions(baseline: Baseline) -> dict[tuple[str, str], Validity]:
    """Whether each direction is in play at each place."""
    seed, unsafe = baseline.inputs.seed, baseline.unsafe[baseline.checked]
    groups = None if baseline.groups is None else baseline.groups[baseline.checked]
    checks: dict[tuple[str, str], Validity] = {}
    for place in baseline.inputs.places:
        projections = baseline.evidence.recordings[place.name].projections.values()
        writes = torch.stack(list(projections)).sum(0)[baseline.checked]
        for column, name in enumerate(baseline.inputs.directions):
            steering = baseline.steering[name, place.steered_at]
            gain = steering.minus.double() - steering.plus.double()
            effect = bootstrap(lambda weights, gain=gain: weights @ gain, len(gain), seed=seed)  # type: ignore[misc]
            own = writes[:, column]
            gap = float(own[unsafe].mean() - own[~unsafe].mean())  # nan if all are alike
            checks[name, place.name] = Validity(auroc(own, unsafe, seed=seed, groups=groups), effect, gap)
    return checks


def validity_table(baseline: Baseline, checks: Mapping[tuple[str, str], Validity]) -> pd.DataFrame:
    """Section 6's validity check, a row per direction and place."""
    unsafe = baseline.unsafe[baseline.checked]
    answer = baseline.inputs.directions["answer"].double()
    random = random_directions(baseline.evidence.values, 1000, seed=baseline.inputs.seed)
    band = compare_with_null(0.0, random @ (answer / answer.norm()))
    rows = []
    places = {place.name: place for place in baseline.inputs.places}
    for (name, place), check in checks.items():
        direction = baseline.inputs.directions[name].double()
        steering = baseline.steering[name, places[place].steered_at]
        rows.append(
            {
                "direction": name,
                "position": place,
                "auroc": check.auroc.value,
                "auroc_low": check.auroc.low,
                "auroc_high": check.auroc.high,
                "gap": check.gap,
                "n_unsafe": int(unsafe.sum()),
                "n_safe": int((~unsafe).sum()),
                "cosine_with_answer": float(torch.cosine_similarity(direction, answer, dim=0)),
                "cosine_null_low": band.low,
                "cosine_null_high": band.high,
                "steering_alpha": steering.alpha,
                "steering_defense_minus": float(steering.minus.double().mean()),
                "steering_defense_none": float(steering.none.double().mean()),
                "steering_defense_plus": float(steering.plus.double().mean()),
                "steering_effect": check.steering_effect.value,
                "steering_effect_low": check.steering_effect.low,
                "steering_effect_high": check.steering_effect.high,
                "steering_n": len(steering.none),
                "in_play": check.in_play,
                "reason": check.reason,
            }
        )
    return pd.DataFrame(rows)
