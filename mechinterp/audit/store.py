"""A folder that keeps what was recorded, each piece under a key of everything it depends on.

So a base is recorded once, however many checkpoints come after it, and a comparison that was killed goes on where it
was. A piece is renamed into place whole. The folder may be removed at any time; it only saves work.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from safetensors import SafetensorError

from mechinterp.data.storage.files import write_json
from mechinterp.data.storage.provenance import digest
from mechinterp.models import processes

logger = logging.getLogger(__name__)


class Piece(Protocol):
    """What can be kept."""

    def save(self, folder: Path) -> Any:
        """Write into a folder, whole or not at all."""


Kept = TypeVar("Kept", bound=Piece)


@dataclass(frozen=True)
class Store:
    """The folder."""

    folder: Path

    def keep(self, kind: str, key: Any, *, load: Callable[[Path], Kept], make: Callable[[], Kept]) -> Kept:
        """The piece under a key: loaded if every process can, else made by all and saved by the main one.

        Args:
            kind: the folder it is in.
            key: everything it depends on, JSON-serialisable.
            load: reads it from its folder.
            make: makes it; called in every process.
        """
        found = self.find(kind, key, load=load)
        if found is not None:
            return found
        return self.add(kind, key, make())

    def find(self, kind: str, key: Any, *, load: Callable[[Path], Kept]) -> Kept | None:
        """The piece under a key, None unless every process can load it."""
        found = _load(self.folder / kind / digest(key), load)
        # together: one that alone made it anew would meet the others, which have gone on, in another exchange
        return found if processes.all_of(found is not None) else None

    def add(self, kind: str, key: Any, piece: Kept) -> Kept:
        """Keep a piece that every process has made; the main one saves it."""
        if processes.is_main():
            piece.save(self.folder / kind / digest(key))
        processes.wait()
        return piece

    def remember(self, kind: str, key: Any, make: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
        """The same for a few labels, as JSON."""
        path = self.folder / kind / f"{digest(key)}.json"
        found = processes.decided(lambda: _read(path))
        if found is None:
            found = make()
            if processes.is_main():
                write_json(path, dict(found))
        return found


def _load(folder: Path, load: Callable[[Path], Kept]) -> Kept | None:
    if not folder.is_dir():
        return None
    try:
        return load(folder)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        logger.warning("%s: made anew, it cannot be read (%s)", folder, error)
        return None


def _read(path: Path) -> Mapping[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
