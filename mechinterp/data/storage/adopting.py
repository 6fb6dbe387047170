"""A study of an older version, which has no list of what was written: its stages' markers say what they made.

A file or folder that is as its marker has it is listed as ours; what was changed since, or is in no marker, is not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from mechinterp.data.storage import ledger
from mechinterp.data.storage.hashing import hash_path

_BESIDES = (
    *("manifest.json", "stages/hashes.cache"),
    *("benchmark/benchmark.csv", "benchmark/table*_*.csv", "benchmark/table*_*.md"),
)
_WHOLE = 256 * 2**20  # larger files were hashed in samples: 64 pieces of 1 MiB, and the size


def adopt(folder: Path) -> None:
    """Begin the list of a run folder, with what an older version wrote into it."""
    if (folder / ledger.LEDGER).exists():
        return
    (folder / ledger.LEDGER).touch()
    for of, names in _made(folder):
        ledger.enter_all(folder, names, of=of)


def adopt_around(path: Path) -> None:
    """The same for the study that a path is in, if it is in one."""
    for folder in path.absolute().parents:
        if (folder / "manifest.json").is_file() and (folder / "stages").is_dir():
            adopt(folder)


def _made(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The files that each stage's marker vouches for, by the stage's name; the manifest and the benchmark's tables."""
    markers = sorted((folder / "stages").glob("*.json"))
    for marker in markers:
        try:
            made = dict(json.loads(marker.read_text(encoding="utf-8"))["made"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        there = {folder / name: digest for name, digest in made.items() if (folder / name).exists()}
        unchanged = [path for path, digest in there.items() if digest in (hash_path(path), _hash(path))]
        files = [file for path in unchanged for file in _files(path)]
        yield marker.stem, [path.relative_to(folder).as_posix() for path in (marker, *files)]
    if markers and (folder / "manifest.json").is_file():
        found = [path for pattern in _BESIDES for path in folder.glob(pattern)]
        yield "", [path.relative_to(folder).as_posix() for path in found]


def _files(path: Path) -> list[Path]:
    return sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path] if path.is_file() else []


def _hash(path: Path) -> str:
    """As the markers have it."""
    digest = hashlib.blake2b(digest_size=16)
    for file in _files(path):
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
