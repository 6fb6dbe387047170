"""The report of a run: one self-contained HTML page, made from the run's saved tables and manifest alone.

The answer comes first, per checkpoint, and is worded from the evidence in `verdict.csv` and `validity.csv`, never from
a checkpoint's name. What is not in play, ill-conditioned or true by construction is said where its number stands. All
that comes from the run is escaped, and the page's own policy forbids it to load anything.
"""

from __future__ import annotations

import base64
import json
import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from mechinterp.files import write_text
from mechinterp.plates import PLATES, draw_figures, figure_bytes, read_tables
from mechinterp.plotting import (
    DIRECTIONS,
    layer_label,
    method_colours,
    method_label,
    p_value_label,
    position_label,
)
from mechinterp.trajectory import last_steps

MAX_ROWS = 60
TABLES = (
    *("verdict", "validity", "mechanism", "defense", "organism", "edits", "toxic_layer", "probe", "judge"),
    *("trajectory", "decomposition", "neurons"),
)
RATES = frozenset(
    (
        *("toxicity_reduction_rate", "activation_shift_rate", "activation_shift_rate_per_input"),
        *("ds", "dg_only_q", "dg_other_a", "dg_other_q", "dg_other_aq", "dg_avg", "empty", "kqa"),
    )
)
BLOCKS = frozenset(("layer", "block", "peak_block"))
PUBLISHED = {
    "sft": ("almost unchanged", "strong"),
    "dpo": ("almost unchanged", "strong"),
    "dinm": ("lower by 2.72%, no interval given", "exactly zero"),
}

_logger = logging.getLogger(__name__)


def write_report(run: Path) -> Path:
    """Write `report.html` of a run folder: the answer, the figures, the tables, the settings, the limits.

    Args:
        run: a folder with `tables/*.csv` and, if it is complete, `manifest.json`. Tables may be missing: what they
            would have shown is left out, and the page says so.

    Returns:
        The page's path, `run/report.html`. The same tables and manifest give the same page.

    Raises:
        InputError: the folder or its tables are missing, or the page cannot be written.
    """
    run = Path(run)
    tables = read_tables(run)
    figures = {name: base64.b64encode(figure_bytes(figure)).decode() for name, figure in draw_figures(tables)}
    environment = Environment(
        loader=PackageLoader("mechinterp"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        name=run.resolve().name,
        cards=[_card(method, tables) for method in _tuned_methods(last_steps(tables))],
        directions=list(_direction_notes(tables)),
        comparison=list(_published_comparison(tables)),
        figures=figures,
        missing_figures={
            name: plate.tables for name, plate in PLATES.items() if name not in figures and not plate.optional
        },
        tables=[_shown_table(name, tables[name]) for name in TABLES if name in tables],
        settings=_settings(_read_manifest(run)),
    )
    return write_text(run / "report.html", page)


@dataclass(frozen=True)
class Finding:
    """What one direction says of one checkpoint at one position: a row of `verdict.csv`, ready to be worded."""

    direction: str
    position: str
    verdict: str
    in_play: bool | None  # None: the run did not check
    erasure_share: float
    erasure_share_low: float
    erasure_share_high: float
    change: float
    change_low: float
    change_high: float
    peak: str
    reason: str
    edited_block: float | None  # the only one whose weights changed, if there is such a one

    @property
    def by_construction(self) -> bool:
        """Whether the share can only be one: no inflow changed, or not that of the one block whose weights changed."""
        exact = self.erasure_share == self.erasure_share_low == self.erasure_share_high == 1
        return exact or self.edited_block is not None

    @property
    def share(self) -> str:
        """The erasure share and its interval, as printed."""
        return _with_interval(*map(_number, (self.erasure_share, self.erasure_share_low, self.erasure_share_high)))

    @property
    def signed_change(self) -> str:
        """The change and its interval as printed, signed: below zero, less is written along the direction."""
        change = ("+" if self.change > 0 else "") + _number(self.change)
        if math.isnan(self.change_low):
            return change
        return _with_interval(change, _number(self.change_low), _number(self.change_high))

    @property
    def place(self) -> str:
        """The position's name, as prose."""
        return _position(self.position)

    def differs_from(self, other: Finding) -> bool:
        """Whether the two readings point different ways: most of the change is erasure in one and not in the other."""
        apart = self.erasure_share_high < other.erasure_share_low or other.erasure_share_high < self.erasure_share_low
        return apart and (self.erasure_share > 0.5) != (other.erasure_share > 0.5)


@dataclass(frozen=True)
class Card:
    """The answer for one checkpoint."""

    name: str
    colour: str
    headline: str
    sentences: list[str]
    findings: list[Finding]
    numbers: list[tuple[str, str, str]]


@dataclass(frozen=True)
class ShownTable:
    """A table as the page prints it: formatted cells, a bound's columns folded into their estimate's."""

    name: str
    columns: list[str]
    rows: list[list[str]]
    n_rows: int

    @property
    def headings(self) -> list[str]:
        """The columns' names without underscores."""
        return [column.replace("_", " ") for column in self.columns]


def _tuned_methods(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    for name in ("verdict", "mechanism", "decomposition", "defense"):
        if name in tables and "method" in tables[name]:
            return [str(method) for method in dict.fromkeys(tables[name]["method"]) if method != "vanilla"]
    return []


def _card(method: str, tables: Mapping[str, pd.DataFrame]) -> Card:
    findings = list(_findings(method, tables))
    return Card(
        name=method_label(method),
        colour=method_colours(_tuned_methods(tables))[method],
        headline=_headline(findings),
        sentences=[*_verdict_sentences(findings), *_disagreement_sentences(findings)],
        findings=findings,
        numbers=[*_mechanism_numbers(method, tables), *_defense_numbers(method, tables)],
    )


def _findings(method: str, tables: Mapping[str, pd.DataFrame]) -> Iterator[Finding]:
    for row in _rows(tables, "verdict", method=method):
        yield Finding(
            direction=str(row.get("direction", "")),
            position=str(row.get("position", "")),
            verdict=str(row.get("verdict", "undecided")),
            in_play=_in_play(row, tables),
            erasure_share=_float(row.get("erasure_share")),
            erasure_share_low=_float(row.get("erasure_share_low")),
            erasure_share_high=_float(row.get("erasure_share_high")),
            change=_float(row.get("change")),
            change_low=_float(row.get("change_low")),
            change_high=_float(row.get("change_high")),
            peak=_cell("peak_block", row.get("peak_block")),
            reason=_cell("reason", row.get("reason")),
            edited_block=_edited_block(row, tables),
        )


def _edited_block(row: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> float | None:
    """The block of an edit of one value matrix: erasure nowhere else, and the inflow unchanged up to it."""
    key = {name: row.get(name) for name in ("method", "direction", "position")}
    blocks = list(_rows(tables, "decomposition", **key))
    erased = [_float(part.get("block")) for part in blocks if part.get("erasure") or part.get("bias")]
    if len(erased) != 1 or any(part.get("bypass") for part in blocks if _float(part.get("block")) <= erased[0]):
        return None
    return erased[0]


def _in_play(row: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> bool | None:
    if _cell("in_play", row.get("in_play")) in ("yes", "no"):
        return _cell("in_play", row["in_play"]) == "yes"
    for checked in _rows(tables, "validity", direction=row.get("direction"), position=row.get("position")):
        return {"yes": True, "no": False}.get(_cell("in_play", checked.get("in_play")))
    return None


def _headline(findings: list[Finding]) -> str:
    counted = [finding for finding in findings if finding.in_play is not False]
    verdicts = {finding.verdict for finding in counted}
    decided = verdicts - {"undecided"}
    if not findings:
        return "Not decomposed"
    if not counted:
        return "No verdict: no direction is in play"
    if len(decided) > 1:
        return "The readings disagree"
    if not decided:
        return "Undecided"
    headline = decided.pop().capitalize()
    if "undecided" in verdicts:
        headline += " where decided"
    if all(finding.by_construction for finding in counted):
        headline += ", by construction"
    return headline


def _verdict_sentences(findings: list[Finding]) -> Iterator[str]:
    counted = [finding for finding in findings if finding.in_play is not False]
    for verdict in dict.fromkeys(finding.verdict for finding in counted if finding.verdict != "undecided"):
        agreeing = [finding for finding in counted if finding.verdict == verdict]
        yield f"{verdict.capitalize()}, judging by {_places(agreeing)}."
    for finding in counted:
        if finding.verdict == "undecided":
            reason = "" if finding.reason == "–" else f": {finding.reason}"
            yield f"Undecided, judging by {_places([finding])}{reason}."
    if raised := [finding for finding in counted if finding.change > 0]:
        yield f"The toxic write rose instead of falling, judging by {_places(raised)}."
    if edited := {finding.edited_block for finding in findings if finding.edited_block is not None}:
        yield (
            f"Only the weights of {layer_label(edited.pop())} changed, and what flows into it is exactly the base's: "
            "its erasure share is 1 by construction; bypass is what the blocks above it make of the changed stream. It "
            "says where the change was made, not that what was learned is gone."
        )
    if idle := [finding for finding in findings if finding.in_play is False]:
        yield f"Not in play, so that an erasure share says nothing about this checkpoint: {_places(idle)}."
    if any(finding.in_play is None for finding in findings):
        yield "Whether the directions are in play was not checked in this run: read the verdict with that in mind."


def _disagreement_sentences(findings: list[Finding]) -> Iterator[str]:
    """Word where the paper's direction and the one that decides the answer differ at one position."""
    by_direction = {(finding.direction, finding.position): finding for finding in findings}
    for position in dict.fromkeys(finding.position for finding in findings):
        probe, answer = by_direction.get(("probe", position)), by_direction.get(("answer", position))
        if probe is None or answer is None:
            continue
        both = f"{probe.share} along the probe direction, {answer.share} along the answer direction"
        if probe.in_play is not False and answer.in_play is not False and probe.verdict != answer.verdict:
            yield (
                f"The directions disagree at the {_position(position)}: {both}. Neither is ruled out, and the "
                "decomposition cannot choose between them."
            )
        elif (probe.in_play is False) != (answer.in_play is False) and probe.differs_from(answer):
            counts = answer if probe.in_play is False else probe
            yield (
                f"The directions disagree at the {_position(position)}: {both}. Only the "
                f"{_direction(counts.direction)} is in play there; the other alone would have misled."
            )


def _places(findings: list[Finding]) -> str:
    """List readings as prose, a direction with its positions: `the answer direction (last prompt token)`."""
    positions: dict[str, list[str]] = {}
    for finding in findings:
        positions.setdefault(finding.direction, []).append(finding.place)
    return "; ".join(f"the {_direction(direction)} ({', '.join(places)})" for direction, places in positions.items())


def _mechanism_numbers(method: str, tables: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, str, str]]:
    for row in _rows(tables, "mechanism", method=method):
        p = _float(row.get("null_p"))
        beyond = "more than" if p < 0.05 else "no more than"
        note = f"{beyond} along random directions (z = {_number(_float(row.get('null_z')))}, {p_value_label(p)})"
        if _cell("ill_conditioned", row.get("ill_conditioned")) == "yes":
            note += "; ill-conditioned: the base toxicity cannot be told from zero, so the rate means little"
        layer = _cell("layer", row.get("layer"))
        yield f"Reduction of the region’s toxicity, {layer}", _estimate(row, "toxicity_reduction_rate"), note
        shift = _float(row.get("activation_shift_rate"))
        note = "exactly: nothing that flows into the region changed" if shift == 0 else "of the base’s mean activation"
        yield "Activations moved by", _estimate(row, "activation_shift_rate"), note


def _defense_numbers(method: str, tables: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, str, str]]:
    before = "; ".join(_estimate(row, "ds") for row in _rows(tables, "defense", method="vanilla"))
    for row in _rows(tables, "defense", method=method):
        suffix = ", suffix prompt appended" if _cell("suffix", row.get("suffix")) == "yes" else ""
        yield "Answered safely", _estimate(row, "ds"), f"of adversarial prompts{suffix}; vanilla {before or 'unknown'}"


def _direction_notes(tables: Mapping[str, pd.DataFrame]) -> Iterator[str]:
    rows = list(_rows(tables, "validity"))
    if in_play := [row for row in rows if _cell("in_play", row.get("in_play")) == "yes"]:
        yield f"In play: {'; '.join(_reading(row) for row in in_play)}."
    for row in rows:
        if _cell("in_play", row.get("in_play")) == "no":
            way = ", below 0.5 and so the wrong way round" if _float(row.get("auroc")) < 0.5 else ""
            minus, none, plus = (_cell("ds", row.get(f"steering_defense_{end}")) for end in ("minus", "none", "plus"))
            yield (
                f"Not in play: {_reading(row)}. The base’s write along it tells prompts it answers unsafely from the "
                f"rest with AUROC {_estimate(row, 'auroc')}{way}; it answers safely {minus} of the time steered "
                f"against it, {none} unsteered, {plus} steered along it."
            )
    for direction, row in {row.get("direction"): row for row in rows if row.get("direction") != "answer"}.items():
        names = ("cosine_with_answer", "cosine_null_low", "cosine_null_high")
        cosine, low, high = (_float(row.get(name)) for name in names)
        if low <= cosine <= high:
            yield (
                f"The {_direction(direction)} is no closer to the answer direction than a random one is: cosine "
                f"{_number(cosine)}, and 95% of random directions lie within [{_number(low)}, {_number(high)}]."
            )


def _reading(row: Mapping[str, Any]) -> str:
    return f"{_direction(row.get('direction'))}, {_position(row.get('position'))}"


def _published_comparison(tables: Mapping[str, pd.DataFrame]) -> Iterator[list[str]]:
    """Set the paper's claims about the methods it names beside this run's numbers, for checkpoints of those names."""
    for row in _rows(tables, "mechanism"):
        published = PUBLISHED.get(str(row["method"]))
        if published is None:
            continue
        reduction = f"reduction {_estimate(row, 'toxicity_reduction_rate')}, {p_value_label(_float(row.get('null_p')))}"
        if _cell("ill_conditioned", row.get("ill_conditioned")) == "yes":
            reduction += ", ill-conditioned"
        name = method_label(str(row["method"]))
        yield [name, "toxicity of the region", published[0], reduction]
        yield [name, "shift of its activations", published[1], _estimate(row, "activation_shift_rate")]


def _shown_table(name: str, table: pd.DataFrame) -> ShownTable:
    bounds = {f"{column}_{end}" for column in table for end in ("low", "high") if f"{column}_{end}" in table}
    columns = [str(column) for column in table if column not in bounds]
    rows = [[_estimate(row, column) for column in columns] for row in table.head(MAX_ROWS).to_dict("records")]
    return ShownTable(name=name, columns=columns, rows=rows, n_rows=len(table))


def _read_manifest(run: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        _logger.warning("%s: no settings in the report, the manifest cannot be read (%s)", run, error)
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _settings(manifest: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """List the manifest's entries under headings: single values first, then a heading per nested part."""
    single = [(key, _setting(value)) for key, value in manifest.items() if not isinstance(value, dict)]
    nested = [(key, list(_flat(value))) for key, value in manifest.items() if isinstance(value, dict)]
    return ([("run", single)] if single else []) + nested


def _flat(part: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in part.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _setting(value)


def _setting(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _rows(tables: Mapping[str, pd.DataFrame], name: str, **equal: object) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, if the run has it, whose columns equal the values given."""
    if name in tables:
        for row in tables[name].to_dict("records"):
            if all(row.get(column) == value for column, value in equal.items()):
                yield {str(column): value for column, value in row.items()}


def _estimate(row: Mapping[Any, Any], column: str) -> str:
    value = _cell(column, row.get(column))
    bounds = [row.get(f"{column}_{end}") for end in ("low", "high")]
    return value if None in bounds else _with_interval(value, *(_cell(column, bound) for bound in bounds))


def _with_interval(value: str, low: str, high: str) -> str:
    return value if low == high == value == "0%" else f"{value} [{low}, {high}]"


def _cell(column: str, value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if str(value) in ("True", "False"):
        return "yes" if str(value) == "True" else "no"
    if not isinstance(value, int | float):
        return str(value)
    if column in BLOCKS:
        return layer_label(value)
    if column in RATES:
        return _number(100 * value) + "%"
    return p_value_label(value).removeprefix("p = ") if column == "null_p" else _number(value)


def _float(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _number(value: float) -> str:
    if math.isnan(value):
        return "–"
    text = f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e6 else f"{value:.3g}"
    return text.replace("-", "−")


def _direction(name: object) -> str:
    return DIRECTIONS.get(str(name), f"{name} direction")


def _position(name: object) -> str:
    return position_label(str(name))
