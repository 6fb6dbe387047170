"""A run folder: the tables, figures, settings and report that a run left, read when they are asked for.

Whoever makes one (a study, a comparison, a relapse test) leaves the same: `manifest.json`, `tables/*.csv`,
`figures/*.png|pdf` and mostly `report.html`. Nothing here opens a model.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mechinterp.answers.wording import Wording
from mechinterp.data.showing import one_line, shown
from mechinterp.data.storage.files import write_json
from mechinterp.data.storage.places import check_free
from mechinterp.data.storage.publishing import publishing
from mechinterp.data.storage.saved_tables import SavedTables
from mechinterp.data.storage.tables import write_table
from mechinterp.errors import InputError, near

if TYPE_CHECKING:
    import pandas as pd

    from mechinterp.report.picture import Picture

REPORT = "report.html"


@dataclass(frozen=True, eq=False)
class RunFolder:
    """What a run left in a folder.

    Attributes:
        path: the folder.
        temporary: the same, if it goes when nothing refers to this object any more; else None.
    """

    path: Path
    temporary: TemporaryDirectory[str] | None = field(default=None, repr=False)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Open the folder of a run, finished or not.

        Raises:
            InputError: if there is no such folder, or neither a manifest nor a table in it.
        """
        folder = cls(Path(path).expanduser())
        if not folder.path.is_dir():
            raise InputError(f"{path}: no such run folder; give the folder that reproduce or compare wrote")
        if not folder.tables and not (folder.path / "manifest.json").is_file():
            raise InputError(
                f"{path}: not the folder of a run, it has neither manifest.json nor tables/*.csv; give the folder that "
                "reproduce or compare wrote"
            )
        return folder

    @staticmethod
    def check_free(
        folder: Path, tables: Collection[str], *, answers: Collection[str] = (), report: bool = False
    ) -> None:
        """Refuse a folder in which something that this tool did not write stands where `write` would, given the same.

        Raises:
            InputError: with the first such place.
        """
        from mechinterp.audit.tables.verdicts import can_be_judged
        from mechinterp.report.plates import figure_files, plates_of

        tables = [*tables, *(["verdict"] if can_be_judged(tables) else [])]
        names = ["manifest.json", *([REPORT] if report else []), *(f"tables/{name}.csv" for name in tables)]
        names += [f"answers/{name}.json" for name in answers]
        figures = [file for name in plates_of(tables) for file in figure_files(folder / "figures", name)]
        check_free(*(folder / name for name in names), *figures)

    @classmethod
    def write(
        cls,
        folder: Path,
        of: str,
        tables: Mapping[str, pd.DataFrame],
        manifest: Mapping[str, Any],
        *,
        answers: Mapping[str, Any] | None = None,
        report: bool = False,
    ) -> RunFolder:
        """Leave tables, the verdict that follows from them, figures and manifest in a folder, all at once or nothing.

        Args:
            folder: held by the caller (`stages.locked`).
            of: the set of results; what an earlier one of it wrote makes way, and nothing else.
            tables: by name.
            manifest: settings, seed and whatever else the results come from, JSON-serialisable.
            answers: what was answered, by checkpoint, JSON-serialisable.
            report: write the page, too.

        Raises:
            InputError: if the folder cannot be written, or a name is taken by what this tool did not write.
        """
        from mechinterp.audit.tables.verdicts import with_verdict
        from mechinterp.report import write_report
        from mechinterp.report.plates import draw_all

        with publishing(folder, of) as staging:
            for name, table in with_verdict(tables, Wording.of(manifest)).items():
                write_table(staging / "tables" / f"{name}.csv", table)
            for name, answered in (answers or {}).items():
                write_json(staging / "answers" / f"{name}.json", answered)
            write_json(staging / "manifest.json", manifest)
            drawn = draw_all(staging)
            if report:
                write_report(staging, drawn, name=folder.resolve().name)
        return cls(folder)

    # -- what it is of ------------------------------------------------------------------------------------------

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Settings, seed, versions and fingerprints of the run; empty where it wrote none.

        Raises:
            InputError: if it cannot be read.
        """
        path = self.path / "manifest.json"
        if not path.is_file():
            return {}
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read as JSON ({error}); make the run again") from error
        if not isinstance(manifest, dict):
            raise InputError(f"{path}: should hold a JSON object, not a {type(manifest).__name__}")
        return manifest

    @property
    def config(self) -> dict[str, Any]:
        """The run's settings, as the manifest has them."""
        config = self.manifest.get("config")
        return config if isinstance(config, dict) else {}

    @property
    def wording(self) -> Wording:
        """How the behaviour is spoken of that its tables are of."""
        return Wording.of(self.manifest)

    @property
    def kind(self) -> str:
        """Which work made it: `study`, `comparison`, `relapse test`, `attack`, `circuits`; else `run`."""
        if (self.path / "stages").is_dir():
            return "study"
        if "comparison" in self.config:
            return "comparison"
        others = {"relapse": "relapse test", "attack": "attack", "circuits": "circuits"}
        return next((kind for key, kind in others.items() if key in self.config), "run")

    @property
    def checkpoints(self) -> dict[str, str]:
        """What was opened, by its name in tables, the base first; empty for a study, which made its checkpoints."""
        found = self.config.get("checkpoints")
        return dict(found) if isinstance(found, dict) else {}

    @property
    def methods(self) -> tuple[str, ...]:
        """The tuned checkpoints' names, as its tables have them; empty without a table of verdicts."""
        found = self._verdicts
        return () if found is None else tuple(dict.fromkeys(map(str, found.get("method", ()))))

    # -- what it holds ------------------------------------------------------------------------------------------

    @cached_property
    def _saved(self) -> SavedTables:
        return SavedTables(self.path)

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables that are there, in alphabetical order."""
        return tuple(self._saved)

    def table(self, name: str) -> pd.DataFrame:
        """A table, tidy; a copy of one's own, its deciding columns last, where pandas shows them.

        Args:
            name: one of `tables`.

        Raises:
            InputError: for any other name, or a file that is damaged.
        """
        from mechinterp.audit.tables.registry import find_table

        if name not in self._saved:
            there = f"it has {', '.join(self.tables) or 'no tables'}"
            raise InputError(f"{self.path}: no table {name!r}; {there}{near(name, self.tables)}")
        found, known = self._saved[name], find_table(name)
        return found.copy() if known is None else found[known.reading_order(map(str, found))]

    @property
    def verdict(self) -> pd.DataFrame:
        """Where each change sits, and whether the behaviour is gone, a row per checkpoint: the table `verdict`.

        Of a study whose stage `report` was left out it is made here, from the tables that are there.
        """
        from mechinterp.audit.tables.verdicts import VERDICT, can_be_judged, verdict_table

        if "verdict" in self.tables or not can_be_judged(self.tables):
            return self.table("verdict")
        made = verdict_table(self._saved, self.wording)
        return made[VERDICT.reading_order(made.columns)]

    @property
    def sentences(self) -> dict[str, str]:
        """Checkpoint -> the verdict on it in words: where its change sits, and whether the behaviour is gone.

        The page says the same. A run that judged neither says what its local shares or its relapse test show.
        """
        from mechinterp.report.findings import sentences

        return {name: self.wording.worded(said) for name, said in sentences(self._saved).items()}

    @property
    def counted(self) -> str:
        """Which rows of `local_verdict` count, which do not, and why."""
        from mechinterp.report.findings import which_count

        return which_count(self._saved)

    def __getattr__(self, name: str) -> Any:
        """Nothing: a name that is not there is answered by a near one; a table's or a figure's by how it is had.

        Raises:
            AttributeError: always.
        """
        said = f"{type(self).__name__!r} object has no attribute {name!r}"
        if not name.startswith("_"):
            there = [each for each in dir(type(self)) if not each.startswith("_")]
            is_table = "path" in vars(self) and name in self.tables
            said += f"; the table is .table({name!r})" if is_table else near(name, there)
        raise AttributeError(said, name=name)

    def __repr__(self) -> str:
        return one_line(self, self.path, "print it to read what was found")

    def __str__(self) -> str:
        """What run it is, and in a sentence for each checkpoint what was found."""
        said = [f"{name}: {sentence}" for name, sentence in self.sentences.items()]
        counted = "" if "verdict" in self.tables else self.counted
        return "\n".join([f"{self.kind} in {self.path}", *said, *filter(None, [counted])])

    @property
    def _verdicts(self) -> pd.DataFrame | None:
        """Its table of verdicts: a comparison's, else the relapse test's."""
        of = next((name for name in ("verdict", "relapse_verdict") if name in self.tables), None)
        return None if of is None else self.table(of)

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures that can be drawn of its tables."""
        from mechinterp.report.plates import plates_of  # matplotlib takes its time

        return tuple(plates_of(self.tables))

    def plot(self, name: str) -> Picture:
        """Draw a figure of its tables, unsaved; a notebook shows it, `.figure` is matplotlib's.

        Args:
            name: one of `figures`.

        Raises:
            InputError: for any other name, or a table that is damaged or lacks a column.
        """
        from mechinterp.report.picture import Picture
        from mechinterp.report.plates import draw_figure

        if name not in self.figures:
            there = f"of its tables can be drawn {', '.join(self.figures)}" if self.figures else "none can be drawn"
            raise InputError(f"{self.path}: no figure {name!r}; {there}{near(name, self.figures)}")
        return Picture(name, draw_figure(name, self._saved, self.wording))

    @property
    def report(self) -> Path:
        """Where its page is, or would be."""
        return self.path / REPORT

    def _repr_html_(self) -> str:
        """What a notebook shows: what run it is, its verdict, and what else there is."""
        facts = {"of": ", ".join(self.methods), "seed": self.manifest.get("seed", "")}
        found = self._verdicts
        lists = {"tables": self.tables, "figures": self.figures}
        there = [f"{what}: {', '.join(names)}" for what, names in lists.items() if names]
        note = "\n".join([*str(self).splitlines()[1:], *there])
        shorter = [] if found is None else [found[[name for name in _SHOWN if name in found]]]
        return shown(f"{self.kind} in {self.path}", facts, *shorter, note=note)


_SHOWN = ("method", "where", "gone", "missing", "verdict", "by_values", "by_activations")
"""Columns of a verdict that a notebook shows; the reasons are in the table."""
