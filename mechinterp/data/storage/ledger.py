"""What this tool wrote: a list in the folder that holds it, so that nothing else is ever removed or overwritten.

`.mechinterp.jsonl` has a line for every file written: its name from there, size and hash. A line is added before the
file is renamed into its place, so that no kill leaves a file of ours that is not listed. A run folder (one that
`stages.locked` has held) has one list for all that is below it, a folder written as a whole (a checkpoint, an edit) one
inside, any other folder one for its files.

A file that is listed and as it was written is ours, and may be replaced. One that was changed since is the user's: the
new one takes its name, his stays beside it as NAME.kept. What is not listed is strange: nothing is written over it.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mechinterp.data.storage.leftovers import is_unfinished

LEDGER = ".mechinterp.jsonl"
"""The list's name."""

_GROWING = "*"  # instead of a hash: whatever is in it is ours


def is_strange(path: Path) -> bool:
    """Whether something is at a path that this tool did not write; of a folder: nothing that is in it."""
    if not os.path.lexists(path):
        return False
    if path.is_symlink() or not path.is_dir():
        return path.is_symlink() or not listed_as(path)
    inside = list(files_below(path))
    return bool(inside) and listed_below(path).keys().isdisjoint(inside)


def enter(written: Path, place: Path) -> None:
    """List what is about to be renamed to a place.

    Args:
        written: the file or folder, whole, where it is now; a folder gets a list inside.
        place: where it will be. What lies in something unfinished is listed when that is.
    """
    if is_unfinished(place):
        return
    if written.is_dir():
        enter_all(written, sorted(name for name in files_below(written) if (written / name).is_file()))
    else:
        ledger, name = _place_in_ledger(place)
        _append(ledger, [_line(name, written, "")])


def enter_growing(path: Path) -> None:
    """List a file that is appended to: whatever is in it is ours."""
    if not is_unfinished(path):
        ledger, name = _place_in_ledger(path)
        _append(ledger, [json.dumps({"name": name, "digest": _GROWING})])


def enter_all(folder: Path, names: Iterable[str], *, of: str = "", at: Path | None = None) -> None:
    """List many files of a folder.

    Args:
        folder: which has the list.
        names: of the files, from there.
        of: the set of results that they are of, see `publishing`.
        at: where the files are until they are moved into the folder.
    """
    _append(folder / LEDGER, [_line(name, (at or folder) / name, of) for name in names])


def names_of(folder: Path, of: str) -> list[str]:
    """The files that a folder's list has of a set of results, from the folder."""
    return list(dict.fromkeys(line["name"] for line in _lines(folder / LEDGER) if line.get("of") == of))


def set_of(path: Path) -> str:
    """The set of results that a listed file is one of, as it was last written; empty where none is known."""
    ledger, name = _place_in_ledger(path)
    return next((str(line.get("of", "")) for line in reversed(_lines(ledger)) if line["name"] == name), "")


def listed_below(folder: Path) -> dict[str, set[str]]:
    """Hashes of everything listed below a folder, by its name from there; in its own list, and in those around it."""
    found: dict[str, set[str]] = {}
    folder = Path(os.path.abspath(folder))
    for name in files_below(folder, ledgers=True):
        if Path(name).name == LEDGER:
            inside = Path(name).parent
            for line in _lines(folder / name):
                found.setdefault((inside / line["name"]).as_posix(), set()).add(line["digest"])
    for outer in folder.parents:
        prefix = f"{folder.relative_to(outer).as_posix()}/"
        for line in _lines(outer / LEDGER):
            if line["name"].startswith(prefix):
                found.setdefault(line["name"].removeprefix(prefix), set()).add(line["digest"])
    return found


def files_below(folder: Path, *, ledgers: bool = False) -> Iterator[str]:
    """Names from a folder of everything below it that is no folder, links included, and of folders that are empty.

    Args:
        ledgers: the lists, too.
    """
    for current, folders, files in os.walk(folder):
        here = Path(current).relative_to(folder)
        links = [name for name in folders if (Path(current) / name).is_symlink()]
        if not folders and not files and here != Path("."):
            yield here.as_posix()
        for name in (*files, *links):
            if ledgers or name != LEDGER:
                yield (here / name).as_posix()


def digest_of(path: Path) -> str:
    """Hash of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def is_as_listed(path: Path, digests: Collection[str]) -> bool:
    """Whether there is a file, and as it was when it was listed under one of these hashes."""
    if not digests or path.is_symlink() or not path.is_file():
        return False
    return _GROWING in digests or digest_of(path) in digests


def listed_as(path: Path) -> set[str]:
    """Hashes under which a file is listed, in the list of any folder around it."""
    path, found = Path(os.path.abspath(path)), set()
    for folder in path.parents:
        name = path.relative_to(folder).as_posix()
        found |= {line["digest"] for line in _lines(folder / LEDGER) if line["name"] == name}
    return found


def _place_in_ledger(path: Path) -> tuple[Path, str]:
    """The list that a file belongs into, and its name there."""
    path = Path(os.path.abspath(path))
    runs = (folder for folder in path.parents if (folder / LEDGER).is_file() and (folder / ".lock").is_file())
    folder = next(runs, path.parent)
    return folder / LEDGER, path.relative_to(folder).as_posix()


def _line(name: str, path: Path, of: str) -> str:
    return json.dumps({"name": name, "digest": digest_of(path), **({"of": of} if of else {})})


def _lines(ledger: Path) -> list[Mapping[str, Any]]:
    """The lines of a list, but for one that a kill wrote by half; none if there is no list."""
    try:
        text = ledger.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = []
    for line in text.split("\n"):
        try:
            value = json.loads(line)
            if isinstance(value["name"], str) and isinstance(value["digest"], str):
                found.append(value)
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _append(ledger: Path, lines: Iterable[str]) -> None:
    """Add lines that are not there yet; in one piece, so that several processes may."""
    text = ledger.read_text(encoding="utf-8", errors="replace") if ledger.exists() else ""
    there = set(text.split("\n"))
    new = [line for line in dict.fromkeys(lines) if line not in there]
    if new:
        cut = "\n" if text and not text.endswith("\n") else ""  # after half a line
        with ledger.open("a", encoding="utf-8") as stream:
            stream.write(cut + "".join(f"{line}\n" for line in new))
