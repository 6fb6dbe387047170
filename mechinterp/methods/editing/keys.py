"""What an edit was made of, as a digest: edits that are already there are used again only where nothing of it differs.

In it are the tokens that were read and scored, the blocks, the component, all settings, and the code that edits; not in
it are the weights, whose fingerprint every edit carries, and how its folder keeps it (`WeightDelta.save`).
"""

from __future__ import annotations

from collections.abc import Sequence

from mechinterp.data.pairs import AnyPair
from mechinterp.data.storage.provenance import code_of, digest
from mechinterp.methods.editing.settings import DinmSettings
from mechinterp.methods.editing.texts import edit_texts
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.upper_blocks import Component

EDITED_BY = ("mechinterp.methods.editing.dinm", "mechinterp.methods.editing.many_edits")
"""The code that edits."""


def edit_key(
    checkpoint: Checkpoint,
    instance: AnyPair,
    block: int | Sequence[int],
    settings: DinmSettings,
    component: Component,
) -> str:
    """Digest of what an instance's edit is made of.

    Raises:
        InputError: for a text that does not fit, as the edit itself.
    """
    texts = edit_texts(checkpoint, instance, settings)
    read = [[list(text.ids), list(text.positions), list(text.labels)] for text in texts]
    blocks = sorted({block} if isinstance(block, int) else set(block))
    return digest([instance.id, read, blocks, component, settings.model_dump(mode="json"), code_of(*EDITED_BY)])


def joint_key(mode: str, keys: Sequence[str]) -> str:
    """Digest of what one edit of several instances is made of, from the keys of each in their order."""
    return digest([mode, *keys])
