"""The plates of a run: all that there are, drawn from its saved tables, and where the files go.

A plate (its texts, its tables, its drawing) is a file of `report.plotting`; to add one, write that file and name it in
`PLATES`: page, command line, `figures/draw.py` and gallery take it from there. Reads only saved tables; a figure
whose tables are missing is left out with a note.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Text

from mechinterp.answers.wording import UNSAFELY, Wording
from mechinterp.audit.trajectory import last_steps
from mechinterp.data.storage.files import replacing
from mechinterp.data.storage.places import check_free
from mechinterp.data.storage.saved_tables import SavedTables
from mechinterp.errors import InputError, near
from mechinterp.report.manifest import wording_of
from mechinterp.report.plotting.all_methods import ALL_METHODS
from mechinterp.report.plotting.attacks import ATTACKS, ATTACKS_OVERVIEW
from mechinterp.report.plotting.certificate import CERTIFICATE
from mechinterp.report.plotting.circuits import CIRCUIT_EDGES, CIRCUIT_NODES, CIRCUIT_OVERLAP, CIRCUIT_RANKS
from mechinterp.report.plotting.decodability import DECODABILITY
from mechinterp.report.plotting.decomposition import BLOCKS_PROMPT_LAST, BLOCKS_RESPONSE, ERASE_OR_BYPASS
from mechinterp.report.plotting.defense import DEFENSE
from mechinterp.report.plotting.depth import DEPTH
from mechinterp.report.plotting.difference import DIFF
from mechinterp.report.plotting.edited_facts import EDITED_FACTS, EDITED_RANKS
from mechinterp.report.plotting.logit_lens import LOGIT_LENS
from mechinterp.report.plotting.mechanism import FIG5_MECHANISM
from mechinterp.report.plotting.middle_shift import FIG8_MIDDLE_SHIFT
from mechinterp.report.plotting.neuron_curve import NEURON_CURVE
from mechinterp.report.plotting.neuron_groups import (
    NEURON_GROUPS,
    NEURON_GROUPS_ACTIVATION_CHANGE,
    NEURON_GROUPS_ACTIVATION_SIGN,
)
from mechinterp.report.plotting.origins import ORIGINS, ORIGINS_BLOCKS
from mechinterp.report.plotting.plate import Plate
from mechinterp.report.plotting.probe_roc import PROBE_ROC
from mechinterp.report.plotting.relapse import RELAPSE, RELAPSE_VERDICT
from mechinterp.report.plotting.residual_shift import RESIDUAL_SHIFT
from mechinterp.report.plotting.stream import STREAM
from mechinterp.report.plotting.style import STYLE
from mechinterp.report.plotting.toxic_activations import TOXIC_ACTIVATIONS
from mechinterp.report.plotting.toxic_layer import TOXIC_LAYER
from mechinterp.report.plotting.trajectory import TRAJECTORY
from mechinterp.report.plotting.value_vectors import VALUE_VECTORS

_logger = logging.getLogger(__name__)


PLATES: Mapping[str, Plate] = {
    plate.name: plate
    for plate in (
        ALL_METHODS,
        ORIGINS,
        ORIGINS_BLOCKS,
        ATTACKS_OVERVIEW,
        ATTACKS,
        DEPTH,
        DECODABILITY,
        CIRCUIT_OVERLAP,
        CIRCUIT_EDGES,
        CIRCUIT_NODES,
        CIRCUIT_RANKS,
        EDITED_FACTS,
        EDITED_RANKS,
        ERASE_OR_BYPASS,
        BLOCKS_PROMPT_LAST,
        BLOCKS_RESPONSE,
        FIG5_MECHANISM,
        FIG8_MIDDLE_SHIFT,
        TOXIC_LAYER,
        RELAPSE,
        RELAPSE_VERDICT,
        STREAM,
        NEURON_GROUPS,
        NEURON_GROUPS_ACTIVATION_CHANGE,
        NEURON_GROUPS_ACTIVATION_SIGN,
        NEURON_CURVE,
        VALUE_VECTORS,
        TOXIC_ACTIVATIONS,
        LOGIT_LENS,
        RESIDUAL_SHIFT,
        CERTIFICATE,
        DEFENSE,
        TRAJECTORY,
        PROBE_ROC,
        DIFF,
    )
}
"""Every plate, in the order of the page: the one place that a new one is named in."""


def read_tables(run: Path) -> dict[str, pd.DataFrame]:
    """Read the tables of a run folder; one that is no CSV is left out with a warning.

    Args:
        run: a folder with `tables/*.csv`.

    Returns:
        A table per file, by the file's name without its ending.

    Raises:
        InputError: there is no such folder, or no table in it.
    """
    if not run.is_dir():
        raise InputError(f"{run}: no such run folder; give the folder that reproduce or compare wrote")
    tables = SavedTables(run).readable()
    if not tables:
        raise InputError(f"{run}: has no tables (tables/*.csv); give the folder that reproduce or compare wrote")
    return tables


def draw_figure(name: str, tables: Mapping[str, pd.DataFrame], wording: Wording = UNSAFELY) -> Figure:
    """Draw one figure.

    Args:
        name: one of `PLATES`.
        tables: tables by name, as `read_tables` gives them.
        wording: of the behaviour that they are of.

    Returns:
        The figure, unsaved.

    Raises:
        InputError: there is no such figure, or a table that it needs is missing, empty or lacks a column.
    """
    if name not in PLATES:
        raise InputError(f"name must be one of {tuple(PLATES)}, got {name!r}{near(name, PLATES)}")
    plate = PLATES[name]
    if missing := [f"tables/{table}.csv" for table in plate.tables if table not in tables]:
        raise InputError(f"figure {name} needs {', '.join(missing)}, which the run does not have")
    needed = {table: tables[table] for table in (*plate.tables, "trajectory") if table in tables}
    shown = last_steps(needed)  # of a training run's steps; all of them are in the trajectory's own figure
    figure = plate.draw(*(shown[table] for table in plate.tables))
    for text in [] if wording == UNSAFELY else figure.findobj(Text):
        text.set_text(wording.worded(text.get_text()))
    return figure


def draw_figures(tables: Mapping[str, pd.DataFrame], wording: Wording = UNSAFELY) -> Iterator[tuple[str, Figure]]:
    """Draw every figure whose tables are there, and log a note for every other.

    Args:
        tables: tables by name, as `read_tables` gives them.
        wording: as `draw_figure` takes it.

    Yields:
        The name and the figure, in the order of `PLATES`.
    """
    for name in PLATES:
        try:
            yield name, draw_figure(name, tables, wording)
        except InputError as error:
            _logger.info("figure %s not drawn: %s", name, error)


def draw_all(run: Path, out: Path | None = None) -> list[Path]:
    """Draw and save every figure whose tables a run has.

    Args:
        run: a folder with `tables/*.csv`.
        out: the folder for the figures; `run/figures` if not given.

    Returns:
        The files written, a PNG and a PDF per figure; the same tables give the same bytes.

    Raises:
        InputError: the run folder or its tables are missing, or a figure's name is taken by what is not ours.
    """
    out, tables = run / "figures" if out is None else out, read_tables(run)
    check_free(*(path for name in plates_of(tables) for path in figure_files(out, name)))
    drawn = draw_figures(tables, wording_of(run))
    return [path for name, figure in drawn for path in save_figure(figure, out, name)]


def plates_of(tables: Collection[str]) -> list[str]:
    """The figures that can be drawn of tables of these names."""
    return [name for name, plate in PLATES.items() if set(plate.tables) <= set(tables)]


def figure_files(folder: Path, name: str) -> list[Path]:
    """The files of a figure."""
    return [folder / f"{name}.{kind}" for kind in ("png", "pdf")]


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and PDF, each whole or not at all.

    Args:
        figure: the figure.
        folder: where; it is made if it is not there.
        name: the files' name without ending.

    Returns:
        The two files.

    Raises:
        InputError: the folder cannot be written.
    """
    paths = figure_files(folder, name)
    for path in paths:
        with replacing(path) as unfinished:
            unfinished.write_bytes(figure_bytes(figure, path.suffix.removeprefix(".")))
        figure.set_layout_engine("none")  # it stays as it was laid out
    return paths


def figure_bytes(figure: Figure, kind: str = "png") -> bytes:
    """Render a figure without dates or versions, so that the same figure gives the same bytes.

    Args:
        figure: the figure.
        kind: `png` or `pdf`.

    Returns:
        The file's content.
    """
    undated = {"png": {"Software": None}, "pdf": {"CreationDate": None, "Creator": None, "Producer": None}}
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format=kind, dpi=200, metadata=undated[kind])
    return buffer.getvalue()
