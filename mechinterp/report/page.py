"""The report of a run: one self-contained HTML page, made from the run's saved tables and manifest alone.

The answer comes first, per checkpoint, and is worded from the run's tables (`report.findings`), never from its name. A
run that judges no checkpoint, of another question (`report.topics`), has a page of that question. A comparison's page
says of what it lacks that it is not there; on others only what holds something stands.
What is not in play, ill-conditioned or true by construction is said where its number stands. All that comes from the
run is escaped, and the page's own policy forbids it to load anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mechinterp.answers.wording import UNSAFELY, Wording
from mechinterp.audit.certificate import certificate
from mechinterp.audit.tables.registry import TABLES
from mechinterp.audit.tables.table import Table
from mechinterp.audit.trajectory import last_steps
from mechinterp.data.storage.files import write_text
from mechinterp.data.storage.places import check_free
from mechinterp.methods.registry import METHODS
from mechinterp.report.cards import card_of
from mechinterp.report.cells import ShownTable
from mechinterp.report.certificate import made_of, place_rows, separation_rows, verdict_rows
from mechinterp.report.directions import direction_notes, published_comparison
from mechinterp.report.findings import rests_on, tuned_methods, which_count
from mechinterp.report.glossary import glossary
from mechinterp.report.manifest import read_manifest, wording_of
from mechinterp.report.plates import PLATES, draw_figures, figure_bytes, read_tables
from mechinterp.report.relapse import relapse_control_rows, relapse_group_rows, relapse_rows, relapse_told
from mechinterp.report.topics import Topic, topics_told
from mechinterp.report.words import linking, words_in

_logger = logging.getLogger(__name__)


def write_report(
    run: Path, drawn: Iterable[Path] | None = None, *, out: Path | None = None, name: str | None = None
) -> Path:
    """Write `report.html` of a run folder: the answer, the figures, the tables, the settings, the limits.

    Args:
        run: a folder with `tables/*.csv` and, if it is complete, `manifest.json`. Tables may be missing: what they
            would have shown is left out, and the page says so.
        drawn: figures that `draw_all` has just made of these tables; without them they are drawn for the page.
        out: folder for the page; `run` if not given.
        name: of the run; that of its folder if not given.

    Returns:
        The page's path, `out/report.html`. The same tables and manifest give the same page.

    Raises:
        InputError: the folder or its tables are missing, or the page cannot be written.
    """
    run = Path(run)
    check_free((out or run) / "report.html")
    tables, certified, wording = read_tables(run), _certified(), wording_of(run)
    figures, environment = _pictures(tables, wording, drawn), _environment()
    last, manifest = last_steps(tables), _read_manifest(run)
    cards = [card_of(method, tables, made=_made(method, manifest)) for method in tuned_methods(last)]
    counted, rested = wording.worded(which_count(last)), wording.worded(rests_on(last))
    notes = [wording.worded(note) for note in direction_notes(tables)]
    topics = [(topic, [wording.worded(said) for said in told]) for topic, told in topics_told(tables)]
    judged = bool(cards) or "relapse_verdict" in tables
    of_comparison = (not topics and not judged) or any(_of_comparison(name) for name in tables)
    words = words_in([rested, counted, *notes, *(text for card in cards for text in (card.sentence, *card.remarks))])
    shown = [ShownTable.of(one, tables[one.name]) for one in TABLES.values() if one.printed and one.name in tables]
    shown_certificate = certified if of_comparison or judged else _UNCERTIFIED
    sections = list(glossary(_defined(tables, topics, bool(shown_certificate["certificate"]))))
    script = _source(environment, "report.js")
    page = environment.get_template("report.html.j2").render(
        name=name or run.resolve().name,
        facts=[*_facts(manifest), *_behaviour(wording)],
        style=Markup(_source(environment, "report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        cards=cards,
        topics=topics,
        judged=judged,
        of_comparison=of_comparison,
        there=set(tables),
        words=words,
        linked=linking(words),
        rests_on=rested,
        which_count=counted,
        directions=notes,
        relapse=list(relapse_rows(tables)),
        relapse_told=list(relapse_told(tables)),
        relapse_controls=list(relapse_control_rows(tables)),
        relapse_groups=list(relapse_group_rows(tables)),
        **shown_certificate,
        comparison=list(published_comparison(tables)),
        figures={name: figures[name] for name in PLATES if name in figures},
        plates=PLATES,
        missing_plates=[plate for plate in PLATES.values() if plate.name not in figures and not plate.optional]
        if of_comparison
        else [],
        tables=shown,
        glossary=sections,
        defined={
            *(anchor for section in sections for anchor in section.anchors),
            *(f"table.{one.table.name}" for one in shown),
            *("paper", "certificate", "settings"),  # sections that say themselves what their headings mean
        },
        settings=_settings(manifest),
    )
    return write_text((out or run) / "report.html", page)


def _pictures(tables: Mapping[str, pd.DataFrame], wording: Wording, drawn: Iterable[Path] | None) -> dict[str, str]:
    """The figures as the page holds them, in base 64: those that were drawn, else drawn now."""
    if drawn is None:
        pictures = {name: figure_bytes(figure) for name, figure in draw_figures(tables, wording)}
    else:
        pictures = {path.stem: path.read_bytes() for path in drawn if path.suffix == ".png"}
    return {name: base64.b64encode(picture).decode() for name, picture in pictures.items()}


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("mechinterp.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _certified() -> dict[str, Any]:
    """What is said of the package's own certificate, on every page the same."""
    known = certificate()
    return {
        "certificate": made_of(known),
        "certified_verdicts": list(verdict_rows(known)),
        "certified_places": list(place_rows(known)),
        "certified_measures": list(separation_rows(known)),
    }


def _source(environment: Environment, name: str) -> str:
    """A file of the templates as it stands."""
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0].strip()


def _of_comparison(name: str) -> bool:
    """Whether a table is of those that comparisons and studies leave, and no other command."""
    table = TABLES.get(name)
    return table is not None and table.stage in _OF_COMPARISONS and not table.optional


_OF_COMPARISONS = ("compare", "defend", "locate", "probe")
"""Stages that ask for what only a study or a comparison has."""

_UNCERTIFIED: dict[str, Any] = {
    "certificate": "",
    **{name: [] for name in ("certified_verdicts", "certified_places", "certified_measures")},
}


def _defined(tables: Mapping[str, pd.DataFrame], topics: Iterable[tuple[Topic, Any]], certified: bool) -> list[Table]:
    """The tables whose columns the page shows or draws from, that of the meta-evaluation among them."""
    there = {*tables, *(["certificate"] if certified else [])}
    told = {name for topic, _ in topics for name in topic.tables}
    return [table for table in TABLES.values() if table.name in there and (table.reported or table.name in told)]


def _made(method: str, manifest: Mapping[str, Any]) -> str:
    """How a study made a checkpoint, in a line; nothing where a user gave it its name."""
    config = manifest.get("config")
    studied = config.get("studied") if isinstance(config, dict) else None
    return METHODS[method].line if isinstance(studied, list) and method in studied and method in METHODS else ""


def _facts(manifest: Mapping[str, Any]) -> list[str]:
    """Which study it was, for the page's first line."""
    config = manifest.get("config")
    title = config.get("title") if isinstance(config, dict) else None
    return [*([str(title)] if title else []), *([f"seed {manifest['seed']}"] if "seed" in manifest else [])]


def _behaviour(wording: Wording) -> list[str]:
    """What the page, which is written of unsafe answers, is of where it is of others."""
    return [] if wording == UNSAFELY else [f"of {wording.shown} answers, which the page’s own texts call unsafe"]


def _read_manifest(run: Path) -> dict[str, Any]:
    try:
        return read_manifest(run)
    except (OSError, ValueError) as error:
        _logger.warning("%s: no settings in the report, the manifest cannot be read (%s)", run, error)
        return {}


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
