"""Resumable stages: each is redone when its settings, its code or the content of what it reads changed.

A stage leaves a marker with a key made of its settings, of the code that it uses (`provenance.code_of`) and of the
hashes of the very files that it reads, and the hashes of what it wrote. So a stage that is redone and makes what it
made before changes nothing for those after it. The marker is written last, so a stage killed half-way is done again;
artefacts are renamed into place whole. No place is part of a key: a run folder may be moved.
"""

from __future__ import annotations

import errno
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from mechinterp.data.storage.adopting import adopt
from mechinterp.data.storage.files import remove, write_json
from mechinterp.data.storage.full_disk import naming
from mechinterp.data.storage.hashing import Hashes, hash_path
from mechinterp.data.storage.ledger import listed_below
from mechinterp.data.storage.provenance import code_of, digest
from mechinterp.data.storage.publishing import recover
from mechinterp.errors import InputError
from mechinterp.models.memory import peak_bytes

logger = logging.getLogger(__name__)

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)  # of file systems


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: shown and used in the marker's name.
        run: does the work.
        makes: files and folders below the run folder that it writes.
        may_make: further ones that it writes in some runs; those of an earlier run are removed first.
        needs: files and folders below the run folder that it reads, which earlier stages made.
        may_need: further ones that it reads where they are there.
        settings: everything else it depends on, JSON-serialisable.
        code: modules whose code it runs, with all that they import.
        reads: files and folders outside the run folder that it reads, by what they are to it.
        rehearse: does the same in another folder, where that takes seconds: by it `foresee` knows what a stage will
            make that is to be redone.
    """

    name: str
    run: Callable[[], None]
    makes: Sequence[str]
    may_make: Sequence[str] = ()
    needs: Sequence[str] = ()
    may_need: Sequence[str] = ()
    settings: Any = None
    code: Sequence[str] = ()
    reads: Mapping[str, Sequence[Path]] = field(default_factory=dict)
    rehearse: Callable[[Path], None] | None = None


class Runner:
    """Runs stages in a folder, skipping those that are up to date.

    Attributes:
        made: the hash of everything that a stage made or was seen to have made, by its place below the folder.
    """

    def __init__(self, folder: Path, *, note: Callable[[str], None] = lambda _: None) -> None:
        self.folder, self.note = folder, note
        self.made: dict[str, str] = {}
        self._memory = folder / "stages" / "hashes.cache"
        self._hashes = Hashes(self._memory)

    def run(self, stage: Stage) -> bool:
        """Bring one stage up to date; returns whether anything had to be done."""
        key = self.key(stage)
        marker = self._marker(stage)
        left = read_marker(marker)
        done = left.get("key") == key and left.get("made") == self._look(stage)
        if not done:
            self.note(f"{stage.name}: started")
            marker.unlink(missing_ok=True)
            for path in stage.may_make:
                remove(self.folder / path)
            started = time.perf_counter()
            stage.run()
            left = {
                "key": key,
                "made": self._look(stage),
                "seconds": round(time.perf_counter() - started, 2),
                "peak_memory_gib": round(peak_bytes() / 2**30, 3),
            }
            if missing := [path for path in stage.makes if path not in left["made"]]:
                raise RuntimeError(f"stage {stage.name} did not make {missing}")
            write_json(marker, left)
        self.made |= left["made"]
        if news := self._hashes.news():
            write_json(self._memory, news)
        self.note(f"{stage.name}: done in {left['seconds']:.1f} s" if not done else f"{stage.name}: up to date")
        return not done

    def foresee(self, stage: Stage) -> bool:
        """Whether `run` would skip a stage, going by its marker and by those of the stages that made what it needs.

        Only what it reads from outside is hashed; what stages made is trusted to be as their markers say. What a stage
        will make that is to be redone is known if it can be rehearsed, and else taken to be something new: a stage
        after it may yet turn out to be up to date.
        """
        left, same = read_marker(self._marker(stage)), False
        there = all((self.folder / path).exists() for path in stage.makes)
        try:
            if left and there and all(path in self.made for path in stage.needs):
                same = left.get("key") == self.key(stage)
            if same:
                self.made |= left["made"]
            elif stage.rehearse is not None and any((self.folder / "stages").glob("*.json")):
                with tempfile.TemporaryDirectory() as place:
                    stage.rehearse(Path(place))
                    self.made |= {path: hash_path(Path(place) / path) for path in stage.makes}
        except InputError:  # what it reads is not there
            return False
        return same

    def key(self, stage: Stage) -> str:
        """Hash of everything that a stage depends on.

        Raises:
            InputError: if something that it reads is not there.
        """
        return digest(
            {
                "settings": json.loads(json.dumps(stage.settings, default=str)),
                "code": code_of(*stage.code),
                "needs": {path: self._hash_of(path) for path in (*stage.needs, *self._there(stage.may_need))},
                "reads": {what: self._hashes.of(*paths) for what, paths in stage.reads.items()},
            }
        )

    def _marker(self, stage: Stage) -> Path:
        return self.folder / "stages" / f"{stage.name}.json"

    def _hash_of(self, path: str) -> str:
        return self.made[path] if path in self.made else self._hash_now(path)

    def _hash_now(self, path: str) -> str:
        """Hash of what a stage made; files that the user keeps in a folder of it are no part of that."""
        return self._hashes.of(self.folder / path, only=listed_below(self.folder / path))

    def _look(self, stage: Stage) -> dict[str, str]:
        """Hashes of what a stage has made."""
        return {path: self._hash_now(path) for path in self._there((*stage.makes, *stage.may_make))}

    def _there(self, paths: Sequence[str]) -> list[str]:
        return [path for path in paths if (self.folder / path).exists()]


def needed(stages: Sequence[Stage], wanted: set[str]) -> set[str]:
    """The names of stages that are wanted, and of all that make what those need."""
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted = wanted | {one.name for one in stages if {*one.makes, *one.may_make} & {*stage.needs}}
    return wanted


def following(stages: Sequence[Stage], first: set[str]) -> list[str]:
    """The names of stages, and of all that read what those make, in order: what starts again after them at most."""
    made: set[str] = set()
    found = []
    for stage in stages:
        if stage.name in first or made & {*stage.needs, *stage.may_need}:
            made |= {*stage.makes, *stage.may_make}
            found.append(stage.name)
    return found


def read_marker(marker: Path) -> dict[str, Any]:
    """What a stage left; of a damaged marker, or one of an earlier kind, nothing."""
    try:
        left = json.loads(marker.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    whole = isinstance(left, dict) and isinstance(left.get("made"), dict) and "seconds" in left
    return left if whole else {}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the run folder and hold it: two runs in one folder would undo each other's work.

    The lock is a lock file, `.lock`, free as soon as its holder ends or dies. What dead processes left unfinished in
    the folder is cleared away, and the list of what was written there begun (`ledger`).

    Raises:
        InputError: if it cannot be written, or another run holds it.
    """
    lock = FileLock(folder.resolve() / ".lock", timeout=0)
    with ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(lock)
        except Timeout as error:
            raise InputError(f"{folder}: another run is working there; wait for it or choose another folder") from error
        except OSError as error:
            if not folder.is_dir() or error.errno not in _NO_LOCKS:
                raise InputError(f"{folder}: cannot be written ({error.strerror})") from error
            logger.warning("%s cannot be locked (%s): do not start a second run there", folder, error.strerror)
        recover(folder)
        with naming(folder):
            adopt(folder)
        yield
