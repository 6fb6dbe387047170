"""Edits of facts as checkpoints whose truth is known by construction, beside those of `methods.constructed`.

    edited_values       W_V of named blocks changed by ROME, FT or MEMIT, and nothing else: a change in the lowest of
                        them is erasure, and below it there is none; those above also see what those below changed
    adapted_attention   LoRA on queries and values of the attention, merged: every W_V is the base's, bit for bit, so
                        that whatever an MLP comes to write is bypass

They calibrate an instrument that tells erasure from bypass where what is changed is a fact.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mechinterp.data.facts.fact import Fact
from mechinterp.data.pairs import AnyPair, Pair
from mechinterp.errors import InputError
from mechinterp.methods.facts.editing import Editor, Mode, edit_facts
from mechinterp.methods.facts.requests import Request
from mechinterp.methods.facts.settings import default_settings
from mechinterp.methods.training.sft import SftSettings, train_sft
from mechinterp.methods.training.trl_training import LoraSettings
from mechinterp.models.checkpoints import Checkpoint

_ADAPTED = (("attn.q", "attn.v"), ("attn.qkv",))
"""What is adapted: queries and values, where they are packed all three."""


def edited_values(
    base: Checkpoint,
    facts: Sequence[Fact | Request],
    method: Editor,
    *,
    blocks: Sequence[int],
    settings: dict[str, Any] | None = None,
    name: str | None = None,
    **more: Any,
) -> Checkpoint:
    """The base with facts written into W_V of some blocks alone (FT's bias stays as it was).

    Args:
        base: left as it was.
        facts: what is changed; by ROME one on top of the other, by the others all at once.
        method: the editor.
        blocks: where; of FT one.
        settings: of the editor, in place of the architecture's own.
        name: label.
        more: `contexts`, `moments`, `seed`, as `edit_facts` takes them.

    Raises:
        InputError: as `edit_facts`; and for FT of several blocks.
    """
    given: dict[str, Any] = {**(settings or {}), "blocks": tuple(blocks)}
    if method == "ft_m":
        if len(given.pop("blocks")) != 1:
            raise InputError(f"ft_m trains one block, got {len(blocks)}")
        given.update(block=blocks[0], biases=False)
    chosen = default_settings(method, base, given)
    mode: Mode = "sequential" if method == "rome" else "batch"
    *_, delta = edit_facts(base, facts, method, mode=mode, settings=chosen, **more)
    return delta.merged(base, name=name or f"{base.name}:{method}")


def adapted_attention(
    base: Checkpoint,
    facts: Sequence[Fact | AnyPair],
    *,
    seed: int,
    settings: SftSettings | None = None,
    **more: Any,
) -> Checkpoint:
    """The base with LoRA on queries and values, trained on the facts' new answers and merged.

    Args:
        base: left as it was.
        facts: whose new answers are learnt; or pairs, of which it is the safe ones.
        seed: as in `train_sft`.
        settings: SFT's; their `only` and `freeze` are replaced, and adapters are of rank 8 where they name none.
        more: as `train_sft` takes it.

    Raises:
        InputError: for an architecture without such parts.
    """
    parts = next((some for some in _ADAPTED if all(base.names.has(f"blocks.0.{one}") for one in some)), None)
    if parts is None:
        raise InputError(f"{base.source}: its attention has no queries and values of their own to adapt")
    given = settings or SftSettings()
    changes = {"only": parts, "freeze": (), "lora": given.lora or LoraSettings()}
    chosen = SftSettings.model_validate({**given.model_dump(), **changes})
    rows = [_pair(number, fact) if isinstance(fact, Fact) else fact for number, fact in enumerate(facts, 1)]
    return train_sft(base, rows, seed=seed, settings=chosen, name=f"{base.name}:attention", **more)[0]


def _pair(number: int, fact: Fact) -> Pair:
    one = Request.of(number, fact)
    return Pair(id=one.id, prompt=one.question, safe=one.target, unsafe="-")
