"""Resumable stages: each is redone when its settings or the content of its inputs changed, and otherwise skipped.

A stage leaves a marker with a key made of its settings and of the hashes of what it read, and the hashes of what it
wrote. The marker is written last, so a stage killed half-way is done again; artefacts are renamed into place whole.
"""

from __future__ import annotations

import hashlib
import json
import logging
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechinterp.errors import InputError
from mechinterp.files import write_json

logger = logging.getLogger(__name__)

_WHOLE = 256 * 2**20  # larger files are hashed in samples: 64 pieces of 1 MiB and the size


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: shown and used in the marker's name.
        run: does the work.
        makes: files and folders below the run folder that it writes.
        may_make: further ones that it writes in some runs; those of an earlier run are removed first.
        needs: names of the stages whose artefacts it reads.
        settings: everything else it depends on, JSON-serialisable.
        reads: files outside the run folder that it reads.
    """

    name: str
    run: Callable[[], None]
    makes: Sequence[str]
    may_make: Sequence[str] = ()
    needs: Sequence[str] = ()
    settings: Any = None
    reads: Sequence[Path] = ()


class Runner:
    """Runs stages in a folder, skipping those that are up to date."""

    def __init__(self, folder: Path, *, note: Callable[[str], None] = lambda _: None) -> None:
        self.folder, self.note = folder, note
        self.made: dict[str, Mapping[str, str]] = {}

    def run(self, stage: Stage) -> bool:
        """Bring one stage up to date; returns whether anything had to be done."""
        key = self._key(stage)
        marker = self.folder / "stages" / f"{stage.name}.json"
        left = _read(marker)
        if left.get("key") == key and left.get("made") == (made := self._hashes(stage)):
            self.note(f"{stage.name}: up to date")
            self.made[stage.name] = made
            return False
        self.note(f"{stage.name}: started")
        marker.unlink(missing_ok=True)
        for path in stage.may_make:
            (self.folder / path).unlink(missing_ok=True)
        started = time.perf_counter()
        stage.run()
        left = {
            "key": key,
            "made": self._hashes(stage),
            "seconds": round(time.perf_counter() - started, 2),
            "peak_memory_gib": round(peak_memory(), 3),
        }
        if missing := [path for path in stage.makes if path not in left["made"]]:
            raise RuntimeError(f"stage {stage.name} did not make {missing}")
        write_json(marker, left)
        self.made[stage.name] = left["made"]
        self.note(f"{stage.name}: done in {left['seconds']:.1f} s")
        return True

    def foresee(self, stage: Stage) -> bool:
        """Whether `run` would skip a stage, going by its marker and by those of the stages it needs.

        Only what it reads from outside is hashed; what stages made is trusted to be as their markers say.
        """
        left = _read(self.folder / "stages" / f"{stage.name}.json")
        if any(name not in self.made for name in stage.needs):
            return False
        if not all((self.folder / path).exists() for path in stage.makes):
            return False
        try:
            same = left.get("key") == self._key(stage)
        except InputError:  # what it reads is not there
            return False
        if same:
            self.made[stage.name] = left["made"]
        return same

    def _key(self, stage: Stage) -> str:
        parts = {
            "settings": stage.settings,
            "needs": {name: self.made[name] for name in stage.needs},
            "reads": {str(path): hash_path(path) for path in stage.reads},
        }
        return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()

    def _hashes(self, stage: Stage) -> dict[str, str]:
        paths = {path: self.folder / path for path in (*stage.makes, *stage.may_make)}
        return {name: hash_path(path) for name, path in paths.items() if path.exists()}


def _read(marker: Path) -> dict[str, Any]:
    try:
        return json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def hash_path(path: Path) -> str:
    """Hash of a file's content, or of the names and contents below a folder.

    Raises:
        InputError: if there is nothing at the path.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    digest = hashlib.blake2b(digest_size=16)
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path)}|{size}|".encode())
        with file.open("rb") as stream:
            if size <= _WHOLE:
                while piece := stream.read(2**22):
                    digest.update(piece)
            else:
                for i in range(64):
                    stream.seek(i * (size - 2**20) // 63)
                    digest.update(stream.read(2**20))
    return digest.hexdigest()


def peak_memory() -> float:
    """Largest resident size of this process so far, in GiB."""
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the run folder and hold it: two runs in one folder would undo each other's work.

    Raises:
        InputError: if it cannot be written, or another run holds it.
    """
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / ".lock").open("w")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from error
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{folder}: another run is working there; wait for it or choose another folder") from error
        except OSError as error:  # a file system without locks
            logger.warning("%s cannot be locked (%s): do not start a second run there", folder, error.strerror)
        for leftover in list(folder.rglob(".*.partial")):  # of a run that was killed
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink(missing_ok=True)
        yield
