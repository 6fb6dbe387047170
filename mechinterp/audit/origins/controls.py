"""What origins say where the answer is known beforehand, whatever the checkpoint: three controls beside every finding.

    random groups      the value vectors of the changed W_V dealt out at random into groups of as many: of what they
                       contribute together each should carry its part, give or take what dealing out does
    shuffled labels    which of a question's two answers counts as the unsafe one is drawn: the change is then one of
                       either sign, and only as many draws as an interval errs should pass for a change at all
    base against base  the base in the tuned model's place: nothing changes, and every share is undefined

None needs a gradient of its own, and the last alone a pass over the texts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from mechinterp.audit.origins.change import Change
from mechinterp.audit.origins.game import Ends
from mechinterp.audit.origins.path import Path
from mechinterp.audit.origins.shares import Shares
from mechinterp.audit.origins.units import Units
from mechinterp.audit.readouts import Readout, log_odds
from mechinterp.measures.intervals import Interval
from mechinterp.measures.statistics import CONFIDENCE, seeded_order, wilson

GROUPS = 4
"""Random groups."""

DRAWS = 200
"""Of labels."""

_NONE = Interval(math.nan, math.nan, math.nan)


def controls(
    change: Change, readout: Readout, units: Units, few: Units, ends: Ends, itself: Ends, along: Path, *, seed: int
) -> Iterator[dict[str, Any]]:
    """Rows of the table `origins_controls`, without method and read-out.

    Args:
        change: between the two models.
        readout: what was read.
        units: of the game, over which intervals are drawn.
        few: of the path.
        ends: the read-out of both models.
        itself: of the base, in both models' place.
        along: the path's contributions.
        seed: of groups, labels and draws.
    """
    n = len(ends[0])
    yield from random_groups(change, few, along, seed=seed, prompts=n)
    if readout is log_odds:
        yield from shuffled_labels(units, ends, seed=seed)
    shares = Shares(units, units.means(itself[1] - itself[0]), torch.zeros(len(units), 0), seed)
    yield _row("base against base", "change", shares.of_change, 0.0, n, note=shares.undefined or "")


def random_groups(change: Change, units: Units, along: Path, *, seed: int, prompts: int) -> Iterator[dict[str, Any]]:
    """What each random group of value vectors makes of what all of them do; arguments as `controls` takes them."""
    matrices = {change.base.names.value_parameter(block)[0]: block for block in range(change.base.n_blocks)}
    blocks = [block for name, block in matrices.items() if name in change.tensors]
    values = along.neurons[:, blocks].flatten(1)
    together = Shares(units, values.sum(1), values.sum(1)[:, None], seed)
    note = Shares(units, along.change, along.phi, seed).undefined or ""
    if not note and together.undefined:
        note = "undefined: the interval of what the value vectors contribute contains 0"
    if not blocks:
        note = "undefined: no value vector was changed"
    vectors, means = values.shape[1], (units.sizes / units.sizes.sum()) @ values
    for number, group in enumerate(torch.tensor(seeded_order(vectors, seed)).tensor_split(GROUPS), 1):
        found, spread, part = _NONE, math.nan, len(group) / vectors if vectors else math.nan
        if not note:
            found = together.share_of_change(values[:, group].sum(1))
            # of a sum over a part of all, drawn without putting back
            spread = float(means.std() * math.sqrt(vectors * part * (1 - part)) / means.sum().abs())
        yield _row("random groups", f"share of group {number}", found, part, prompts, spread=spread, note=note)


def shuffled_labels(units: Units, ends: Ends, *, seed: int) -> Iterator[dict[str, Any]]:
    """The change with signs that are drawn prompt by prompt: the log odds of the answers the other way round."""
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, (DRAWS, len(ends[0])), generator=generator, dtype=torch.float64) * 2 - 1
    drawn = [Shares(units, units.means(sign * (ends[1] - ends[0])), torch.zeros(len(units), 0), seed) for sign in signs]
    n = len(ends[0])
    yield _row("shuffled labels", "change", drawn[0].of_change, 0.0, n, note=drawn[0].undefined or "")
    taken = wilson(sum(shares.undefined is None for shares in drawn), DRAWS)
    yield _row("shuffled labels", "changes that pass for one", taken, 1 - CONFIDENCE, n)


def _row(
    control: str, quantity: str, found: Interval, expected: float, n: int, *, spread: float = math.nan, note: str = ""
) -> dict[str, Any]:
    return {
        "control": control,
        "quantity": quantity,
        "n": n,
        **found.columns("found"),
        "expected": expected,
        "spread": spread,
        "note": note,
    }
