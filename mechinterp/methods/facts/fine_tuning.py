"""FT-L and FT-M on facts: W_V of one block, descended on the target alone.

    FT-M  (`response`)     each token of the target is asked after the ones before it
    FT-L  (`prompt_last`)  all of them of the last token of the prompt (Meng et al. 2022; Zhu et al. 2020)

The descent is the one of `editing.ft_l`. Several facts are learnt together, on the mean of their losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mechinterp.data.pairs import Pair
from mechinterp.errors import InputError
from mechinterp.methods.editing.dinm import edit, edit_batch
from mechinterp.methods.facts.requests import Request
from mechinterp.methods.facts.settings import FtMSettings, default_settings
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.passes.watching import Progress


def ft_m(
    checkpoint: Checkpoint,
    requests: Sequence[Request],
    *,
    settings: FtMSettings | None = None,
    progress: Progress | None = None,
) -> WeightDelta:
    """One edit of one or several facts; the model is left as it was.

    Args:
        checkpoint: the model to edit.
        requests: the facts.
        settings: by default those of the architecture's family; `objective="prompt_last"` for FT-L.
        progress: called with (steps done, steps in all).

    Raises:
        InputError: as `dinm.edit`; and without facts.
    """
    if not requests:
        raise InputError("there are no facts to edit")
    own = default_settings("ft_m", checkpoint)
    assert isinstance(own, FtMSettings)
    found = own if settings is None else settings
    block = own.block if found.block is None else found.block
    assert block is not None
    checkpoint.names.value_parameter(checkpoint.names.check_block(block))
    pairs = [
        Pair(id=one.id, prompt=one.question, safe=one.target, unsafe="-", question=str(one.id)) for one in requests
    ]
    wanted = found.as_edit()
    if len(pairs) == 1:
        delta = edit(checkpoint, pairs[0], block=block, settings=wanted, component=found.component, progress=progress)
    else:
        delta = edit_batch(
            checkpoint, pairs, block=block, settings=wanted, component=found.component, progress=progress
        )
    method = "ft_m" if found.objective == "response" else "ft_l"
    return replace(delta, settings={"method": method, **delta.settings, "component": found.component})
