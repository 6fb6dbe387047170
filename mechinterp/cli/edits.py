"""Edits of some instances into a folder, in each mode of `mechinterp edit`; what the command does and says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mechinterp.cli.common import is_main, say
from mechinterp.data.counting import many
from mechinterp.errors import InputError

if TYPE_CHECKING:
    from mechinterp.cli.terminal import Terminal
    from mechinterp.data.pairs import AnyPair
    from mechinterp.methods.editing.dinm import DinmSettings
    from mechinterp.models.checkpoints import Checkpoint
    from mechinterp.models.deltas import WeightDelta


@dataclass(frozen=True)
class Edits:
    """Edits of some instances into a folder, in each mode."""

    checkpoint: Checkpoint
    instances: Sequence[AnyPair]
    blocks: Mapping[int, int | Sequence[int]]
    settings: DinmSettings
    rank: int | None
    terminal: Terminal

    def one(self, out: Path) -> WeightDelta:
        """A single instance."""
        from mechinterp.methods.editing.dinm import edit as edit_one

        (instance,) = self.instances
        progress, block = self.terminal.progress("editing"), self.blocks[instance.id]
        found = edit_one(self.checkpoint, instance, block=block, settings=self.settings, progress=progress)
        return self._saved(found, out)

    def each(self, out: Path, together: int | None) -> None:
        """An edit for every instance, in OUT/INSTANCE/; says so, and raises at the end for those that failed."""
        from mechinterp.methods.editing.many_edits import edits_in, keep_edits

        failed = keep_edits(
            out,
            self.checkpoint,
            self.instances,
            blocks=self.blocks,
            settings=self.settings,
            together=together,
            rank=self.rank,
            progress=self.terminal.progress("editing"),
        )
        if len(failed) < len(self.instances):
            say(f"edits of {many(len(self.instances) - len(failed), 'instance')}, {self._log(edits_in(out))}: {out}")
        if failed:
            raise InputError(f"{len(failed)} of {len(self.instances)} edits came to nothing; the first: {failed[0]}")

    def sequential(self, out: Path, start: WeightDelta | None) -> WeightDelta:
        """One on top of the other; what is in the folder is gone on from."""
        from mechinterp.methods.editing.many_edits import edit_sequentially

        if start is not None:
            start.check(self.checkpoint)
        found, progress = start, self.terminal.progress("editing")
        for found in edit_sequentially(
            self.checkpoint,
            self.instances,
            blocks=self.blocks,
            settings=self.settings,
            start=start,
            progress=progress,
        ):
            self._saved(found, out)
        if found is None:
            raise InputError("there are no instances to edit")
        return found

    def batch(self, out: Path) -> WeightDelta:
        """One edit for all of them, at the most frequent of their blocks."""
        from mechinterp.methods.editing.dinm import edit_batch

        every = [tuple([b] if isinstance(b, int) else b) for b in self.blocks.values()]
        block = max(sorted(set(every)), key=every.count)
        if len(set(every)) > 1:
            self.terminal.note(f"the instances' toxic layers differ; the batch is edited at block {block[0]}")
        progress = self.terminal.progress("editing")
        found = edit_batch(self.checkpoint, self.instances, block=block, settings=self.settings, progress=progress)
        return self._saved(found, out)

    def _saved(self, found: WeightDelta, out: Path) -> WeightDelta:
        if is_main():
            found.save(out, rank=self.rank)
        return found

    def _log(self, folders: Sequence[Path]) -> str:
        """Write the table of all steps; the losses over the edits, in words."""
        from mechinterp.data.storage.tables import write_table
        from mechinterp.methods.editing.many_edits import edit_log

        log = edit_log(folders)
        if is_main():
            write_table(folders[0].parent / "edit_log.csv", log)
        if log.empty:
            return "no steps"
        by_edit = log.groupby("instance")["loss_edit"]
        return f"mean loss of the safe response {by_edit.first().mean():.3f} -> {by_edit.last().mean():.3f}"


def started(out: Path, settings: DinmSettings) -> WeightDelta | None:
    """The edits one on top of the other that are in a folder; None if there are none.

    Raises:
        InputError: for an edit of another mode, or with other settings.
    """
    from mechinterp.models.deltas import WeightDelta

    if not (out / "edit.json").is_file():
        return None
    start = WeightDelta.load(out)
    if start.mode != "sequential":
        raise InputError(
            f"{out}: an edit of --mode {start.mode or '(unknown)'} is there, on which --mode sequential cannot stand; "
            "choose another folder, or remove it"
        )
    if dict(start.settings) != settings.model_dump():
        raise InputError(f"{out}: edits with other settings are there; choose another folder, or remove them")
    return start


def check_places(out: Path, merged: Path | None, ids: Sequence[int], *, many: bool, log: bool = True) -> None:
    """Refuse to write where something else stands, before anything long is done.

    Args:
        out: folder of the edit, or of the edits.
        merged: folder of the edited model.
        ids: of what is edited.
        many: whether each gets a folder of its own in `out`.
        log: whether the steps of many are written there too.

    Raises:
        InputError: with the folder.
    """
    from mechinterp.data.storage.places import check_free, check_replaceable, check_writable
    from mechinterp.models.deltas import EDIT_FILES

    check_writable(out, kind="folder")
    for folder in [out / str(one) for one in ids] if many else [out]:
        check_replaceable(folder, ours=EDIT_FILES)
    if many and log:
        check_free(out / "edit_log.csv")
    if merged is not None:
        check_writable(merged, kind="folder")
        check_replaceable(merged)
        one, other = out.resolve(), merged.resolve()
        if one.is_relative_to(other) or other.is_relative_to(one):
            raise InputError(f"--out {out} and --merged {merged}: choose two folders, neither of them in the other")


def told(found: WeightDelta, out: Path) -> str:
    """An edit in one line."""
    where = ", ".join(f"layer {block + 1} (block {block})" for block in (found.block, *found.also))
    several = len(found.instances) > 1
    whose = many(len(found.instances), "instance") if several else f"instance {found.instance}"
    if not found.log:
        return f"edit of {whose} at {where}: {out}"
    first, last = found.log[0], found.log[-1]
    return (
        f"edit of {whose} at {where}, loss of the safe response {first.loss_edit:.3f} -> {last.loss_edit:.3f}, "
        f"share of its tokens right {first.accuracy:.2f} -> {last.accuracy:.2f}, "
        f"change {last.change_norm:.2%} of the weights' norm: {out}"
    )
