"""Names of unfinished files that tell who makes them, so that only what a dead process left is ever cleared away.

    .NAME.HOST-PID-START.partial    being written
    .NAME.HOST-PID-START.old        what stood at NAME, while the new one is renamed into its place
    .NAME.HOST-PID-START.ready      results that are whole, on the way to their places (`publishing`)

A maker is dead if it ran on this host and no process of its number started when it did. Of another host nothing is
known: what it left stays.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

Kind = Literal["partial", "old", "ready"]

_NAME = re.compile(
    r"\.(?P<name>.+)\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)\.(?P<kind>partial|old|ready)", re.S
)
_TOLERANCE = 5  # seconds: a start is told to the second, from a clock that is set now and then


class Leftover(NamedTuple):
    """What a process that died has left.

    Attributes:
        path: its own.
        place: what it was to be, or was.
        kind: see above.
    """

    path: Path
    place: Path
    kind: Kind


def unfinished(place: Path, kind: Kind = "partial") -> Path:
    """The path beside a place at which this process makes what is to stand there."""
    start = int(psutil.Process().create_time())
    return place.with_name(f".{place.name}.{_host()}-{os.getpid()}-{start}.{kind}")


def is_unfinished(path: Path) -> bool:
    """Whether a path lies in something that is being made."""
    return any(_NAME.fullmatch(part) for part in path.parts)


def left_beside(place: Path) -> Iterator[Leftover]:
    """What dead processes left of one file or folder."""
    yield from (found for found in _left_in(place.parent, os.listdir(place.parent)) if found.place.name == place.name)


def left_below(folder: Path) -> Iterator[Leftover]:
    """What dead processes left in a folder and below, but for folders with a lock of their own and links."""
    for current, folders, files in os.walk(folder):
        here = Path(current)
        if here != folder and ".lock" in files:
            folders.clear()
            continue
        yield from list(_left_in(here, [*folders, *files]))
        folders[:] = [name for name in folders if not _NAME.fullmatch(name)]


def _left_in(folder: Path, names: list[str]) -> Iterator[Leftover]:
    for name in sorted(names):
        found = _NAME.fullmatch(name)
        if found and found["host"] == _host() and not _alive(int(found["pid"]), int(found["start"])):
            yield Leftover(folder / name, folder / found["name"], found["kind"])  # type: ignore[arg-type]


def _host() -> str:
    return hashlib.blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()


def _alive(pid: int, start: int) -> bool:
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - start) <= _TOLERANCE and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
