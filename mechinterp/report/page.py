"""The report of a run: one self-contained HTML page, made from the run's saved tables and manifest alone.

The answer comes first, per checkpoint, and is worded from the run's tables (`report.findings`), never from its name.
What is not in play, ill-conditioned or true by construction is said where its number stands. All that comes from the
run is escaped, and the page's own policy forbids it to load anything.
"""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mechinterp.audit.certificate import certificate
from mechinterp.audit.tables.registry import TABLES
from mechinterp.audit.trajectory import last_steps
from mechinterp.data.storage.files import write_text
from mechinterp.data.storage.places import check_free
from mechinterp.report.cards import card_of
from mechinterp.report.cells import ShownTable
from mechinterp.report.certificate import calibrated_on, calibration_notes, calibration_rows
from mechinterp.report.directions import direction_notes, published_comparison
from mechinterp.report.findings import tuned_methods, which_count
from mechinterp.report.plates import PLATES, draw_figures, figure_bytes, read_tables
from mechinterp.report.relapse import relapse_control_rows, relapse_group_rows, relapse_rows

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
    tables, known = read_tables(run), certificate()
    if drawn is None:
        pictures = {name: figure_bytes(figure) for name, figure in draw_figures(tables)}
    else:
        pictures = {path.stem: path.read_bytes() for path in drawn if path.suffix == ".png"}
    figures = {name: base64.b64encode(picture).decode() for name, picture in pictures.items()}
    environment = Environment(
        loader=PackageLoader("mechinterp.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    last = last_steps(tables)
    page = environment.get_template("report.html.j2").render(
        name=name or run.resolve().name,
        cards=[card_of(method, tables) for method in tuned_methods(last)],
        which_count=which_count(last),
        directions=list(direction_notes(tables)),
        relapse=list(relapse_rows(tables)),
        relapse_controls=list(relapse_control_rows(tables)),
        relapse_groups=list(relapse_group_rows(tables)),
        calibration=list(calibration_rows(known)),
        calibrated_on=calibrated_on(known),
        calibration_notes=list(calibration_notes(known)),
        comparison=list(published_comparison(tables)),
        figures=figures,
        plates=PLATES,
        missing_plates=[plate for plate in PLATES.values() if plate.name not in figures and not plate.optional],
        tables=[ShownTable.of(one, tables[one.name]) for one in TABLES.values() if one.printed and one.name in tables],
        settings=_settings(_read_manifest(run)),
    )
    return write_text((out or run) / "report.html", page)


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
