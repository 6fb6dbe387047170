"""Is an edited checkpoint what its settings say: changed where the method changes, of the rank it has, or not at all?

The commonest fault is an edit that was never saved: EasyEdit puts the weights back after each edit unless it is told to
go on (`sequential_edit=True`), so that what is saved is the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mechinterp.audit.weights_alone.difference import Difference
from mechinterp.methods.facts.easyedit import EasyEdit
from mechinterp.models.names import HookNames

_NAMED = 3  # parameters that a sentence lists


@dataclass(frozen=True)
class Expectation:
    """How an edited checkpoint stands to its settings.

    Attributes:
        verdict: `as expected`, `nothing changed`, or `not as expected`.
        reasons: in words; the first says what changed.
    """

    verdict: Literal["as expected", "nothing changed", "not as expected"]
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.verdict}: {'; '.join(self.reasons)}"


def as_expected(found: Difference, settings: EasyEdit, names: HookNames, *, requests: int | None = None) -> Expectation:
    """Hold a difference against the settings of the method that should have made it.

    Args:
        found: base against edited, with ranks.
        settings: see `read_easyedit`.
        names: of the base.
        requests: how many facts were edited; ranks are not judged without it.

    Raises:
        InputError: for settings of another model.
    """
    wanted = settings.changes(names)
    table = found.tensors.set_index("parameter")
    moved = [str(name) for name, status in table["status"].items() if status not in ("same", "type", "rounded", "step")]
    if not moved:
        return Expectation(
            "nothing changed",
            (
                f"no weight differs, where {settings.algorithm} changes {_listed(wanted)}",
                "EasyEdit puts the weights back after an edit unless sequential_edit=True: save the model after that",
            ),
        )
    others = [name for name in moved if name not in wanted]
    still = [name for name in wanted if name not in moved and not name.endswith(".bias")]
    changed = [name for name in moved if name in wanted]
    reasons = [f"{settings.algorithm} changed {_listed(changed) or 'nothing of its own'}"]
    wrong = bool(others or still)
    if others:
        reasons.append(f"so did what it leaves alone: {_listed(others)}")
    if still:
        reasons.append(f"unchanged, though named by the settings: {_listed(still)}")
    ranks = table.loc[changed, "rank"].dropna()
    if len(ranks):
        largest, most = int(ranks.max()), settings.rank
        if settings.method and most is not None:  # an adapter's does not depend on the number of facts
            most = None if requests is None else most * requests
        wrong = wrong or (most is not None and largest > most)
        reasons.append(f"of rank {largest}" + ("" if most is None else f", where at most {most} is possible"))
    return Expectation("not as expected" if wrong else "as expected", tuple(reasons))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
