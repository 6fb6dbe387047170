"""What a way to detoxify made, in its folder of the benchmark."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mechinterp.data.storage.files import write_json
from mechinterp.methods.task import Treatment

MADE = "made.json"
"""Written last: without it a folder is not complete."""


@dataclass(frozen=True)
class Made:
    """What a way made.

    Attributes:
        way, label: its name, and what it is called in tables.
        answers: folder of the answers.
        edits: id of the instance -> folder, of a way that edits instance by instance; in the order of the study's
            instances, which takes turns among the categories.
        edit, checkpoint: folder of the one edit or checkpoint, of any other way; of a way that changes nothing, none.
        prefix, suffix: text around every query.
        seconds: that making took; None if it was not all made at one time, or by the study before.
    """

    way: str
    label: str
    answers: Path
    edits: Mapping[int, Path]
    edit: Path | None
    checkpoint: Path | None
    prefix: str | None
    suffix: str | None
    seconds: float | None

    def parts(self, most: int | None = None) -> Iterator[Made]:
        """Itself, or its edits (the first ones), each as one that makes one checkpoint."""
        if not self.edits:
            yield self
            return
        for number in list(self.edits)[:most]:
            yield self.part(number)

    def part(self, instance: int) -> Made:
        """The edit of one instance."""
        answers = self.answers / "asked" / str(instance)  # not in the edit's own folder, which is the edit and no more
        return replace(self, answers=answers, edits={}, edit=self.edits[instance], seconds=None)

    @classmethod
    def read(cls, way: str, label: str, folder: Path, *, trained: Path | None) -> Made | None:
        """What a way left in a folder, None if it is not complete.

        Args:
            way, label: see `Made`.
            folder: the way's own.
            trained: the study's checkpoint, of a way that makes none of its own.
        """
        try:
            found = json.loads((folder / MADE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        edit, checkpoint = folder / "edit", trained or folder / "checkpoint"
        return cls(
            way,
            label,
            answers=folder,
            edits={number: edit_of(folder, number) for number in found["order"]},
            edit=edit if edit.is_dir() else None,
            checkpoint=checkpoint if checkpoint.is_dir() else None,
            **{name: found[name] for name in ("prefix", "suffix", "seconds")},
        )


def edit_of(folder: Path, instance: int) -> Path:
    """Where the edit of an instance is, by its id."""
    return folder / "edits" / str(instance)


def keep(treatment: Treatment, folder: Path, around: Mapping[str, str | None], *, per_instance: bool) -> None:
    """Write what a way made of one instance, or of all."""
    if not (folder / "around.json").exists():
        write_json(folder / "around.json", around)
    if treatment.delta is not None:
        treatment.delta.save(edit_of(folder, treatment.instances[0].id) if per_instance else folder / "edit")
    elif treatment.checkpoint is not None:
        treatment.checkpoint.save(folder / "checkpoint")
