"""What each direction says of a checkpoint, which of that counts, and the verdict that follows, in one sentence.

A row of `local_verdict.csv` is one reading: a direction at a position. Those count whose direction is in play in the
base (`validity.csv`); the verdict is theirs where they agree. Command line, page and `RunFolder` say it with these
words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

from mechinterp.audit.tables.reading import Tables, as_float, interval_of, rows
from mechinterp.audit.trajectory import last_steps
from mechinterp.measures.intervals import Interval
from mechinterp.report.cells import cell, direction_label, number, place_label, with_interval

READ = ("verdict", "local_verdict", "validity", "decomposition", "relapse_verdict", "trajectory")
"""The tables that the sentences are made of."""


@dataclass(frozen=True)
class Finding:
    """What one direction says of one checkpoint at one position: a row of `local_verdict.csv`, ready to be worded."""

    direction: str
    position: str
    verdict: str
    in_play: bool | None  # None: the run did not check
    erasure_share: Interval
    change: Interval
    peak: str
    reason: str
    edited_block: float | None  # the only one whose weights changed, if there is such a one

    @property
    def counts(self) -> bool:
        """Whether the verdict may rest on it: its direction is in play, or that was not checked."""
        return self.in_play is not False

    @property
    def by_construction(self) -> bool:
        """Whether the share can only be one: no inflow changed, or not that of the one block whose weights changed."""
        exact = self.erasure_share == Interval(1.0, 1.0, 1.0)
        return exact or self.edited_block is not None

    @property
    def share(self) -> str:
        """The erasure share and its interval, as printed."""
        return with_interval(*map(number, astuple(self.erasure_share)))

    @property
    def said(self) -> str:
        """The reading in a few words: its direction and erasure share, or why it is undecided."""
        along = f"along the {direction_label(self.direction)}"
        if self.verdict == "undecided":
            return f"undecided {along}" + ("" if self.reason == "–" else f": {self.reason}")
        share = with_interval(*(f"{end:z.0%}" for end in astuple(self.erasure_share)))
        return f"{share} erasure {along}"

    @property
    def place(self) -> str:
        """The position's name, as prose."""
        return place_label(self.position)

    def differs_from(self, other: Finding) -> bool:
        """Whether the two readings point different ways: most of the change is erasure in one and not in the other."""
        one, two = self.erasure_share, other.erasure_share
        return (one.high < two.low or two.high < one.low) and (one.value > 0.5) != (two.value > 0.5)


def tuned_methods(tables: Tables) -> list[str]:
    """The checkpoints that are compared with the base, in the tables' order."""
    for name in ("verdict", "local_verdict", "mechanism", "decomposition", "defense"):
        if name in tables and "method" in tables[name]:
            return [str(method) for method in dict.fromkeys(tables[name]["method"]) if method != "vanilla"]
    return []


def findings(method: str, tables: Tables) -> Iterator[Finding]:
    """What every direction says of one checkpoint at every position."""
    for row in rows(tables, "local_verdict", method=method):
        yield Finding(
            direction=str(row.get("direction", "")),
            position=str(row.get("position", "")),
            verdict=str(row.get("verdict", "undecided")),
            in_play=_in_play(row, tables),
            erasure_share=interval_of(row, "erasure_share"),
            change=interval_of(row, "change"),
            peak=cell("peak_block", row.get("peak_block")),
            reason=cell("reason", row.get("reason")),
            edited_block=_edited_block(row, tables),
        )


CALIBRATED = 6
"""Blocks of the models on which the verdicts were calibrated (`audit.certificate`)."""


def headline(found: Sequence[Finding]) -> str:
    """The verdict in a few words: that of the readings that count, where they agree."""
    counted = [finding for finding in found if finding.counts]
    verdicts = {finding.verdict for finding in counted}
    decided = verdicts - {"undecided"}
    if not found:
        return "Not decomposed"
    if not counted:
        return "No verdict: no direction is in play"
    if len(decided) > 1:
        return "The readings disagree"
    if not decided:
        return "Undecided"
    said = decided.pop().capitalize()
    if "undecided" in verdicts:
        said += " where decided"
    if all(finding.by_construction for finding in counted):
        said += ", by construction"
    return said


def sentences(tables: Tables) -> dict[str, str]:
    """Checkpoint -> the verdict on it; of a trajectory the last step alone.

    Args:
        tables: those of a run, of which `READ` are looked at.
    """
    there = last_steps({name: tables[name] for name in READ if name in tables})
    methods = tuned_methods(there) or [str(row["method"]) for row in rows(there, "relapse_verdict")]
    return {method: sentence(method, there) for method in methods}


def sentence(method: str, tables: Tables) -> str:
    """The verdict on one checkpoint: both halves; of a run that judged neither, its local shares and its test."""
    judged = next(rows(tables, "verdict", method=method), {})
    return str(judged["sentence"]) if isinstance(judged.get("sentence"), str) else local_sentence(method, tables)


def local_sentence(method: str, tables: Tables) -> str:
    """What the local shares and the relapse test say: `bypassed (at the last prompt token, 18% erasure …)`."""
    said = [_decomposed(list(findings(method, tables)))] if "local_verdict" in tables else []
    for row in rows(tables, "relapse_verdict", method=method):
        reason = cell("reason", row.get("reason"))
        said.append(f"relapse test: {row.get('verdict')}" + ("" if said or reason == "–" else f"; {reason}"))
    return "; ".join(said) or "no verdict: neither decomposed nor tested for relapse"


def rests_on(tables: Tables) -> str:
    """What the two halves of the sentences rest on, and what of it this run lacks; empty where there is no verdict."""
    if "verdict" not in tables:
        return ""
    told = [
        "Where a change sits is told by what every group of changed weights contributes to the fall of the log odds of "
        "unsafe answers, at any depth (table origins)",
        "Whether the behaviour is gone is told by the depth score and by attacks, beside a model that never knew "
        "(tables depth and attacks)",
    ]
    scored = any(not math.isnan(as_float(row.get("score"))) for row in rows(tables, "depth"))
    lacks = [
        *([] if "origins" in tables else ["origins"]),
        *([] if scored else ["depth score"]),
        *([] if "attacks" in tables else ["attacks"]),
    ]
    return ". ".join([*told, *([f"This run has no {' and no '.join(lacks)}"] if lacks else [])]) + "."


def which_count(tables: Tables) -> str:
    """Which readings the sentences rest on, which not, and why; empty where nothing was decomposed."""
    found = [finding for method in tuned_methods(tables) for finding in findings(method, tables)]
    readings = list({(finding.direction, finding.position): finding for finding in found}.values())
    counted = [finding for finding in readings if finding.counts]
    idle = [finding for finding in readings if not finding.counts]
    if not readings:
        return ""
    told = [f"What counts: {places_of(counted) or 'nothing'}"]
    if idle:
        told.append(
            "Not in play, and so not counted (the base's write along it does not tell its unsafe answers from the "
            f"rest, or steering along it does not move them; table validity): {places_of(idle)}"
        )
    told.append("A share is local to each block: what a block inherits from changed blocks below it counts as bypass.")
    n_blocks = len({row.get("block") for row in rows(tables, "decomposition")})
    if n_blocks > CALIBRATED:
        told[-1] += (
            f" The verdicts were calibrated on models of {CALIBRATED} blocks, this one has {n_blocks}: a first real "
            "model of 30 blocks read bypassed whatever was done to it, so that the words above are no findings here."
        )
    return ". ".join(told)


def _decomposed(found: Sequence[Finding]) -> str:
    """The headline, and in brackets the readings that count, those of one position together."""
    verdict = headline(found)
    counted = [finding for finding in found if finding.counts]
    decided = {finding.verdict for finding in counted} - {"undecided"}
    at: dict[str, list[str]] = {}
    for finding in counted:
        word = f": {finding.verdict}" if len(decided) > 1 and finding.verdict != "undecided" else ""
        said = finding.said if decided else finding.said.removeprefix("undecided ")  # which the verdict says already
        at.setdefault(finding.place, []).append(said + word)
    told = [f"at the {place}, {', '.join(readings)}" for place, readings in at.items()]
    if any(finding.edited_block is not None for finding in found):
        told.append("one block's weights alone were changed")
    if any(finding.in_play is None for finding in found):
        told.append("whether the directions are in play was not checked")
    return f"{verdict[0].lower()}{verdict[1:]}" + (f" ({'; '.join(told)})" if told else "")


def places_of(findings: list[Finding]) -> str:
    """List readings as prose, a direction with its positions: `the answer direction (last prompt token)`."""
    positions: dict[str, list[str]] = {}
    for finding in findings:
        positions.setdefault(finding.direction, []).append(finding.place)
    return "; ".join(
        f"the {direction_label(direction)} ({', '.join(places)})" for direction, places in positions.items()
    )


def _edited_block(row: Mapping[str, Any], tables: Tables) -> float | None:
    """The block of an edit of one value matrix: erasure nowhere else, and the inflow unchanged up to it."""
    key = {name: row.get(name) for name in ("method", "direction", "position")}
    blocks = list(rows(tables, "decomposition", **key))
    erased = [as_float(part.get("block")) for part in blocks if part.get("erasure") or part.get("bias")]
    if len(erased) != 1 or any(part.get("bypass") for part in blocks if as_float(part.get("block")) <= erased[0]):
        return None
    return erased[0]


def _in_play(row: Mapping[str, Any], tables: Tables) -> bool | None:
    if cell("in_play", row.get("in_play")) in ("yes", "no"):
        return cell("in_play", row["in_play"]) == "yes"
    for checked in rows(tables, "validity", direction=row.get("direction"), position=row.get("position")):
        return {"yes": True, "no": False}.get(cell("in_play", checked.get("in_play")))
    return None
