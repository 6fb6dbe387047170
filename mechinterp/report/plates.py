"""The plates of a run: which figure is drawn from which tables, and where the files go.

Reads only saved tables; a figure whose tables are missing is left out with a note.
"""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from mechinterp.audit.trajectory import last_steps
from mechinterp.data.storage.files import replacing
from mechinterp.data.storage.places import check_free
from mechinterp.data.storage.saved_tables import SavedTables
from mechinterp.errors import InputError
from mechinterp.report.plotting import (
    STYLE,
    plot_blocks,
    plot_calibration,
    plot_defense,
    plot_difference,
    plot_erase_or_bypass,
    plot_logit_lens,
    plot_mechanism,
    plot_middle_shift,
    plot_neuron_curve,
    plot_neuron_groups,
    plot_probe_roc,
    plot_relapse,
    plot_relapse_verdict,
    plot_residual_shift,
    plot_stream,
    plot_toxic_activations,
    plot_toxic_layer,
    plot_trajectory,
    plot_value_vectors,
)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plate:
    """A figure of a run: the tables it needs, in the order its function takes them."""

    tables: tuple[str, ...]
    plot: Callable[..., Figure]
    optional: bool = False  # of some runs only: nobody misses it in the others


PLATES = {
    "erase_or_bypass": Plate(("decomposition", "verdict"), plot_erase_or_bypass),
    "blocks_prompt_last": Plate(("decomposition",), partial(plot_blocks, position="prompt_last")),
    "blocks_response": Plate(("decomposition",), partial(plot_blocks, position="response")),
    "fig5_mechanism": Plate(("mechanism",), plot_mechanism),
    "fig8_middle_shift": Plate(("middle_shift",), plot_middle_shift),
    "toxic_layer": Plate(("toxic_layer",), plot_toxic_layer),
    "relapse": Plate(("relapse",), plot_relapse, optional=True),
    "relapse_verdict": Plate(("relapse_verdict",), plot_relapse_verdict, optional=True),
    "stream": Plate(("stream",), plot_stream, optional=True),
    "neuron_groups": Plate(("neuron_groups",), plot_neuron_groups, optional=True),
    "neuron_groups_activation_change": Plate(
        ("neuron_groups",), partial(plot_neuron_groups, definition="activation_change"), optional=True
    ),
    "neuron_groups_activation_sign": Plate(
        ("neuron_groups",), partial(plot_neuron_groups, definition="activation_sign"), optional=True
    ),
    "neuron_curve": Plate(("neuron_curve",), plot_neuron_curve, optional=True),
    "value_vectors": Plate(("value_vectors",), plot_value_vectors, optional=True),
    "toxic_activations": Plate(("toxic_activations",), plot_toxic_activations, optional=True),
    "logit_lens": Plate(("logit_lens",), plot_logit_lens, optional=True),
    "residual_shift": Plate(("residual_shift",), plot_residual_shift, optional=True),
    "calibration": Plate(("calibration",), plot_calibration, optional=True),
    "defense": Plate(("defense",), plot_defense),
    "trajectory": Plate(("trajectory",), plot_trajectory, optional=True),
    "probe_roc": Plate(("probe_roc",), plot_probe_roc),
    "diff": Plate(("diff_blocks",), plot_difference, optional=True),
}


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


def draw_figure(name: str, tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw one figure.

    Args:
        name: one of `PLATES`.
        tables: tables by name, as `read_tables` gives them.

    Returns:
        The figure, unsaved.

    Raises:
        InputError: a table that the figure needs is missing, empty or lacks a column.
        ValueError: there is no such figure.
    """
    if name not in PLATES:
        raise ValueError(f"name must be one of {tuple(PLATES)}, got {name!r}")
    if missing := [f"tables/{table}.csv" for table in PLATES[name].tables if table not in tables]:
        raise InputError(f"figure {name} needs {', '.join(missing)}, which the run does not have")
    needed = {table: tables[table] for table in (*PLATES[name].tables, "trajectory") if table in tables}
    shown = last_steps(needed)  # of a training run's steps; all of them are in the trajectory's own figure
    return PLATES[name].plot(*(shown[table] for table in PLATES[name].tables))


def draw_figures(tables: Mapping[str, pd.DataFrame]) -> Iterator[tuple[str, Figure]]:
    """Draw every figure whose tables are there, and log a note for every other.

    Args:
        tables: tables by name, as `read_tables` gives them.

    Yields:
        The name and the figure, in the order of `PLATES`.
    """
    for name in PLATES:
        try:
            yield name, draw_figure(name, tables)
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
    return [path for name, figure in draw_figures(tables) for path in save_figure(figure, out, name)]


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


def draw_script(name: str, description: str | None) -> None:
    """Run one script of `figures/`: `SCRIPT RUN [--out DIR]` draws a figure and prints the paths written.

    Args:
        name: one of `PLATES`.
        description: the script's docstring, shown by `--help`.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("run", type=Path, help="a run folder, with tables/*.csv")
    parser.add_argument("--out", type=Path, help="the folder to write to [RUN/figures]")
    arguments = parser.parse_args()
    try:
        folder = arguments.out or arguments.run / "figures"
        check_free(*figure_files(folder, name))
        paths = save_figure(draw_figure(name, read_tables(arguments.run)), folder, name)
    except InputError as error:
        parser.error(str(error))
    for path in paths:
        sys.stdout.write(f"{path}\n")
