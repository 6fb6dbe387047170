"""Hashes of files and folders: every byte is read, and an unchanged file is not read again.

A file counts as unchanged while its path (links followed), size, times of change (mtime and ctime, in nanoseconds) and
inode are those of when it was hashed. A file that had changed within the `RECENT` seconds before is not remembered: it
could change once more within one tick of the file system's clock, and nothing would show it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mechinterp.data.storage.ledger import LEDGER, digest_of
from mechinterp.errors import InputError

RECENT = 2.0
"""Seconds; no file system's clock is coarser."""


class Hashes:
    """Hashes of files, each remembered while its file does not change.

    Args:
        memory: file that remembers them from one process to the next (its content: `news`); None for this object alone.
    """

    def __init__(self, memory: Path | None = None) -> None:
        self._kept = {} if memory is None else _read(memory)
        self._new = False

    def of(self, *paths: Path, only: Collection[str] = ()) -> str:
        """Hash of the content of a file, or of the names and contents of all files below a folder, links followed.

        Args:
            paths: one, or several that belong together: of those the names count, not the folders they are in.
            only: of what is below a folder, files of these names from there; every file if there are no names.

        Raises:
            InputError: if there is nothing at a path, or it cannot be read.
        """
        for path in paths:
            if not path.exists():
                raise InputError(f"{path}: no such file or folder")
        if len(paths) == 1 and paths[0].is_file():
            return self._of_files(paths)[0]
        named = [(str(file.relative_to(path)), file) for path in paths if path.is_dir() for file in files_below(path)]
        if only:
            named = [(name, file) for name, file in named if Path(name).as_posix() in only]
        named += [(path.name, path) for path in paths if path.is_file()]
        hashes = self._of_files([file for _, file in named])
        listed = sorted((name, found) for (name, _), found in zip(named, hashes, strict=True))
        return hashlib.blake2b(json.dumps(listed).encode(), digest_size=16).hexdigest()

    def news(self) -> dict[str, list[Any]]:
        """What the memory's file should hold from now on, if that changed; files that are gone are forgotten."""
        new, self._new = self._new, False
        return {place: kept for place, kept in self._kept.items() if Path(place).is_file()} if new else {}

    def _of_files(self, files: Iterable[Path]) -> list[str]:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # hashlib lets other threads run meanwhile
            return list(pool.map(self._of_file, files))

    def _of_file(self, file: Path) -> str:
        place = str(file.resolve())
        try:
            before, started = state_of(file), time.time_ns()
            if place in self._kept and self._kept[place][:-1] == before:
                return str(self._kept[place][-1])
            found = digest_of(file)
            if settled(before, started) and state_of(file) == before:
                self._kept[place], self._new = [*before, found], True
        except OSError as error:
            raise InputError(f"{file}: cannot be read ({error.strerror})") from error
        return found


def hash_path(*paths: Path) -> str:
    """`Hashes.of`, remembering nothing."""
    return Hashes().of(*paths)


def state_of(file: Path) -> list[int]:
    """What shows that a file changed: size, mtime, ctime and inode, links followed."""
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def settled(state: list[int], now: int) -> bool:
    """Whether a file with this `state_of` had changed long enough before `now` (in ns) for a change to show."""
    return max(state[1], state[2]) < now - int(RECENT * 1e9)


def files_below(folder: Path) -> list[Path]:
    """Every file below a folder but lists of what we wrote, sorted; links are followed, but not back around."""
    found = []
    for place, folders, names in os.walk(folder, followlinks=True):
        above = Path(place).resolve()
        folders[:] = [name for name in folders if (Path(place) / name).resolve() not in (above, *above.parents)]
        found += [path for name in names if name != LEDGER and (path := Path(place) / name).is_file()]
    return sorted(found)


def _read(memory: Path) -> dict[str, list[Any]]:
    """What was remembered; of a memory that is not there or damaged, nothing."""
    try:
        kept = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {place: one for place, one in kept.items() if isinstance(one, list)} if isinstance(kept, dict) else {}
