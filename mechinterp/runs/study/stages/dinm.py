"""Stage `dinm`: an edit per chosen instance; the one that stands for `dinm` first."""

from __future__ import annotations

from mechinterp.data.storage.files import replacing, write_json
from mechinterp.methods.editing.dinm import checked
from mechinterp.methods.editing.many_edits import edit_each
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.checkpoints import checkpoint_of
from mechinterp.runs.study.edited import edited_instances
from mechinterp.runs.study.run import Run
from mechinterp.runs.study.toxic_layer import block_of, blocks_of


def make(run: Run, reporter: Reporter) -> None:
    """The edits."""
    vanilla, chosen, blocks, block = checkpoint_of(run, "vanilla"), edited_instances(run), blocks_of(run), block_of(run)
    # the one that stands for `dinm` is edited where the others are compared with it
    chosen.sort(key=lambda instance: blocks[instance.id] != block)
    blocks[chosen[0].id] = block
    with replacing(run.folder / "edits") as partial_folder:
        partial_folder.mkdir()
        progress = reporter.progress("dinm: edits")
        for found in edit_each(vanilla, chosen, blocks=blocks, settings=run.config.dinm, progress=progress):
            checked(found).save(partial_folder / str(found.instance))
        write_json(partial_folder / "order.json", [instance.id for instance in chosen])
