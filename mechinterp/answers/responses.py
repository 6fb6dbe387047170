"""Responses kept in a file as they come, so that a run that was killed goes on where it was.

While a run is on, `NAME.json` says under which settings, and every process appends the responses of each batch to a
`NAME.partN.jsonl` of its own. At the end `NAME.jsonl` is written whole, in the order of the prompts, and the parts are
removed. A run under other settings is refused: nothing would be reused, and what took hours is not overwritten.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mechinterp.data.storage import ledger
from mechinterp.data.storage.files import json_line, write_json, write_text
from mechinterp.data.storage.full_disk import naming
from mechinterp.data.storage.places import check_free, check_writable
from mechinterp.data.texts import check_whole, read_json_lines
from mechinterp.errors import InputError
from mechinterp.models import processes

Settings = Mapping[str, Any]
"""Everything the responses depend on, JSON-serialisable, by words that tell a user what it is."""


@dataclass(frozen=True)
class ResponseLog:
    """The responses had so far under some settings, and the place where new ones are appended.

    Attributes:
        path: of the whole file, ends in `.jsonl`.
        had: (instance of the edit or None, prompt) -> response.
        complete: whether the whole file is there already.
    """

    path: Path
    settings: Settings
    had: Mapping[tuple[int | None, str], str]
    complete: bool

    @classmethod
    def open(cls, path: str | Path, settings: Settings) -> ResponseLog:
        """Take up what an earlier run of the same settings left, or begin; every process makes this call.

        Raises:
            InputError: if the place cannot be written, or holds the responses of other settings; says which differ.
        """
        path = Path(path)
        had, complete = processes.decided(lambda: _left(path, settings))  # the parts grow as soon as that one goes on
        with naming(path):
            ledger.enter_growing(_part(path, processes.rank()))
        if processes.is_main() and not complete:
            write_json(labels_of(path), {"settings": settings, "complete": False})
            lines = [_line(edit, prompt, response) for (edit, prompt), response in had.items()]
            write_text(_part(path, 0), "".join(lines))  # without a half-written line
            for part in _parts(path)[1:]:
                part.unlink()
        processes.wait()
        return cls(path, settings, had, complete)

    def of(self, edit: int | None) -> dict[str, str]:
        """Responses had so far, by prompt: under an edit, or of the checkpoint itself for None."""
        return {prompt: response for (number, prompt), response in self.had.items() if number == edit}

    def add(self, edit: int | None, new: Mapping[str, str]) -> None:
        """Append responses, by prompt, and hand them to the system at once."""
        part = _part(self.path, processes.rank())
        with naming(part), part.open("a", encoding="utf-8") as stream:
            stream.write("".join(_line(edit, prompt, response) for prompt, response in new.items()))

    def close(self) -> None:
        """Remove the parts, once the whole file has been written."""
        processes.wait()
        if processes.is_main():
            for part in _parts(self.path):
                part.unlink()


def check_responses(path: Path) -> None:
    """Refuse a place, before any work is done for it, at which something other than responses stands.

    Raises:
        InputError: with the place.
    """
    there = labels_of(path)
    if not isinstance(_labels(there).get("settings"), dict):  # an older version did not list what it wrote
        check_free(path, there)


def labels_of(path: Path) -> Path:
    """The file beside some responses that says what they have in common."""
    return path.with_suffix(".json")


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a user's file of JSON lines, or of a JSON list, each with its place.

    Raises:
        InputError: if it cannot be read, or holds something else.
    """
    for place, value in read_json_lines(path, "responses as JSON lines"):
        if not isinstance(value, dict):
            raise InputError(f"{path}: {place} is not a JSON object; give responses as JSON lines")
        check_whole(value, f"{path}: {place}")
        yield place, value


def _read_part(path: Path) -> Iterator[dict[str, Any]]:
    """What one process kept, without a last line that was written by half."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        for line in lines[:-1]:  # a whole line ends with a newline, what stands after the last one is half a line
            yield json.loads(line)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it to begin again") from error


def _left(path: Path, settings: Settings) -> tuple[dict[tuple[int | None, str], str], bool]:
    """The responses that an earlier run left in its parts, and whether it left the whole file instead."""
    labels = _checked(path, settings)
    check_free(*_parts(path, strange=True))
    complete = path.is_file() and bool(labels.get("complete"))
    had: dict[tuple[int | None, str], str] = {}
    for part in [] if complete else _parts(path):
        try:
            had |= {(line["edit"], line["prompt"]): line["response"] for line in _read_part(part)}
        except (KeyError, TypeError) as error:
            raise InputError(f"{part}: not responses kept by an earlier run ({error!r}); remove it") from error
    return had, complete


def _checked(path: Path, settings: Settings) -> dict[str, Any]:
    """The labels that stand at a place, none for a new one."""
    if path.suffix != ".jsonl":
        raise InputError(f"{path}: responses are kept as JSON lines, give a file whose name ends in .jsonl")
    check_writable(path)
    there = labels_of(path)
    if not there.exists() and not path.exists():
        return {}
    labels = _labels(there)
    before = labels.get("settings")
    if not isinstance(before, dict):
        raise InputError(
            f"{path}: {there.name} beside it does not say how these responses were made; move them away or give "
            "another place"
        )
    now = json.loads(json.dumps(settings))
    if differing := sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name)):
        raise InputError(
            f"{path}: holds responses of another run, which differs in {', '.join(differing)}; move them away or give "
            "another place"
        )
    if ledger.is_strange(there):  # by an older version, which did not list what it wrote
        for old in (there, path, *_parts(path, strange=True)):
            if old.is_file():
                ledger.enter(old, old)
    return labels


def _labels(there: Path) -> dict[str, Any]:
    """What the file beside some responses says of them; nothing if it cannot be read."""
    try:
        return dict(json.loads(there.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _part(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.part{number}.jsonl")


def _parts(path: Path, *, strange: bool = False) -> list[Path]:
    """The parts that are there, the main process's first; those of the user's, which have such a name, on request."""
    named = re.compile(re.escape(path.stem) + r"\.part\d+\.jsonl")
    parts = [part for part in path.parent.iterdir() if named.fullmatch(part.name) and part.is_file()]
    parts = [part for part in parts if strange or not ledger.is_strange(part)]
    return sorted(parts, key=lambda part: (part != _part(path, 0), part.name))


def _line(edit: int | None, prompt: str, response: str) -> str:
    return json_line({"edit": edit, "prompt": prompt, "response": response})
