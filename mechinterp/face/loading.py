"""Whatever a user names, turned into what the rooms take: checkpoints, weights, data, directions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mechinterp.answers.behaviour import UNSAFE, Behaviour
from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.audit.directions.toxic_direction import ToxicDirection
from mechinterp.data.comments import Comment, read_comments
from mechinterp.data.facts.fact import Fact
from mechinterp.data.facts.files import read_facts
from mechinterp.data.pair_files import read_pairs
from mechinterp.data.pairs import AnyPair, Pair, numbered
from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.errors import InputError
from mechinterp.face.progress import watched
from mechinterp.models.bases import stands_on
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.files.weights import LazyWeights
from mechinterp.models.sources import Source
from mechinterp.models.text.chat import ChatChoice, ChatFormat
from mechinterp.runs.candidate import stands_on_memory

CheckpointLike = Checkpoint | str | Path
"""A checkpoint in memory, or the folder, adapter, edit, file of weights or hub id of one."""
DirectionLike = ToxicDirection | ToxicProbe | Float[Tensor, " d_model"] | str | Path
"""A direction or a probe, a bare vector, or the file of any of them."""


def load(
    source: CheckpointLike,
    *,
    base: CheckpointLike | None = None,
    name: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    device_map: str | None = None,
    trust_remote_code: bool = False,
    chat: str | ChatFormat | None = None,
    system: str | None = None,
    thinking: bool | None = None,
    date: str | None = None,
) -> Checkpoint:
    """Load a checkpoint of any kind; one that is in memory already passes through.

    Args:
        source: a transformers folder, a GGUF file, a peft adapter's folder, an edit's folder, a file with a state dict
            (`.safetensors`, `.bin`, `.pt`, `.pth`), or a hub id, which alone needs the network.
        base: what an adapter, an edit or a state dict stands on: a checkpoint in memory, which is left as it is, or
            any source. An adapter may name its own.
        name: label in tables; by default that of the folder or file.
        dtype: `auto` (as the files say), `float32`, `bfloat16` or `float16`.
        device: `auto` (CUDA when there is one), or a torch device.
        device_map: `auto` to spread a model over devices.
        trust_remote_code: run code that comes with the checkpoint; off unless asked for.
        chat: how prompts are fed to it: `auto`, in its tokenizer's chat template; `none`, as plain text; a file with a
            template; or another checkpoint's `.chat`. None: as `auto` where there is a template, else as plain text; a
            checkpoint in memory keeps what it has.
        system: the system message; an empty one is not an absent one.
        thinking: whether a reasoning model's template lets it think first.
        date: the day that the template is told, YYYY-MM-DD.

    Returns:
        The checkpoint: `.model`, `.tokenizer`, `.names` (its hook points), `.fingerprint` (of its weights).

    Raises:
        InputError: if there is no such checkpoint, it is damaged, does not fit its base, or holds NaN weights.

    Example:
        >>> base = mi.load("BASE")
        >>> tuned = mi.load("runs/dpo", base=base, name="dpo")
    """
    asked = chat if isinstance(chat, ChatFormat) else ChatChoice(chat, system, thinking, date)
    with watched(progress=False):
        if isinstance(source, Checkpoint):
            found = source if name is None else replace(source, name=name)
            return found if asked == ChatChoice() else _reading(found, asked)
        if isinstance(base, Checkpoint):
            lies = Source.find(source)
            if lies.kind in ("edit", "adapter"):
                own = base.copied()
                own = own if asked == ChatChoice() else _reading(own, asked)
                changed = own.changed_by(lies, f"{lies.given} on {base.source}")
                changed.check_finite()
                return changed if name is None else replace(changed, name=name)
            base = None if lies.whole else _place_of(base, lies)
        return Checkpoint.load(
            source,
            base=base,
            name=name,
            dtype=dtype,
            device=device,
            device_map=device_map,
            trust_remote_code=trust_remote_code,
            chat=asked,
        )


def _reading(checkpoint: Checkpoint, chat: ChatChoice | ChatFormat) -> Checkpoint:
    """A checkpoint in memory, to be fed in another format."""
    if isinstance(chat, ChatChoice):
        return replace(checkpoint, chat=chat.of(checkpoint.tokenizer, checkpoint.source))
    return replace(checkpoint, chat=chat)


def _place_of(base: Checkpoint, source: Source) -> str:
    """Where a base in memory came from, of which a bare file of weights takes config and tokenizer."""
    if not Path(base.source).exists():
        raise InputError(f"{source.given}: a file of weights needs its base's config; give the folder of {base.name}")
    return base.source


def weights_of(source: CheckpointLike | LazyWeights, other: CheckpointLike | LazyWeights | None = None) -> LazyWeights:
    """The weights of a checkpoint, one tensor at a time: from its files where they hold them, else from memory.

    Args:
        source: any checkpoint.
        other: what it is set against, on which an edit or a bare file of weights stands.

    Raises:
        InputError: if there is no such checkpoint, or it is damaged.
    """
    if isinstance(source, LazyWeights):
        return source
    if isinstance(source, Checkpoint):
        return source.weights
    if isinstance(other, Checkpoint):
        found = Source.find(source)
        if stands_on_memory(found, other):
            return load(source, base=other).weights
        return load(source).weights if found.kind == "adapter" else LazyWeights.open(source)
    if isinstance(other, LazyWeights):
        other = other.source
    place, base = stands_on(str(source), str(other)) if other is not None else (str(source), None)
    if Source.find(place).kind in ("adapter", "hub"):  # merged, or fetched, before it has weights of its own
        return load(place, base=base).weights
    return LazyWeights.open(place, base)


def directions_of(given: DirectionLike | Mapping[str, DirectionLike], checkpoint: str) -> dict[str, ToxicDirection]:
    """Directions by name, of one or of several.

    Args:
        given: one direction, or several by name.
        checkpoint: what they are used on, for errors.

    Raises:
        InputError: for what is no direction.
    """
    if not isinstance(given, Mapping):
        one = direction_of(given)
        return {one.name: one}
    if not given:
        raise InputError(f"no direction is given to measure {checkpoint} along; give a probe or a direction")
    return {name: direction_of(each, name) for name, each in given.items()}


def direction_of(given: DirectionLike, name: str | None = None) -> ToxicDirection:
    """One direction.

    Raises:
        InputError: for what is none.
    """
    if isinstance(given, ToxicProbe):
        return ToxicDirection.from_probe(given, name=name)
    if isinstance(given, Tensor):
        return ToxicDirection(given, "file", name or "direction")
    if isinstance(given, ToxicDirection):
        return given if name is None else given.named(name)
    if isinstance(given, str | Path):
        return ToxicDirection.load(given, name=name)
    raise InputError(f"a direction is a probe, a direction, a vector or a file of one, got {type(given).__name__}")


def instances_of(data: Sequence[Any] | str | Path, behaviour: Behaviour = UNSAFE) -> list[AnyPair]:
    """Pairs, SafeEdit's instances or others, read where they are given as a file; or made of a behaviour's own data.

    Raises:
        InputError: if there is no such file, or a row of it is malformed.
    """
    if not behaviour.of_pairs:
        return behaviour.pairs(data)
    if isinstance(data, str | Path):
        return behaviour.pairs(read_pairs(data))
    given: object = data
    if not isinstance(given, Sequence) or not all(isinstance(each, Pair | SafeEditInstance) for each in given):
        raise InputError("data is no list of pairs; give what mi.read_pairs reads, a list of mi.Pair, or a file's path")
    return behaviour.pairs(numbered(list(given)))


def comments_of(comments: Sequence[Comment] | str | Path) -> list[Comment]:
    """Labelled comments, read where they are given as a file with Jigsaw's columns.

    Raises:
        InputError: if there is no such file, or it is none of comments.
    """
    return read_comments(comments) if isinstance(comments, str | Path) else list(comments)


def facts_of(facts: Sequence[Fact] | str | Path) -> list[Fact]:
    """Facts, read where they are given as a file.

    Raises:
        InputError: for what is none of facts.
    """
    given = read_facts(facts) if isinstance(facts, str | Path) else list(facts)
    found = [each for each in given if isinstance(each, Fact)]
    if len(found) < len(given):
        raise InputError(
            "facts is no list of mi.Fact, so no list of facts; give what mi.read_facts reads, or a file's path"
        )
    return found


def probe_of(probe: ToxicProbe | str | Path) -> ToxicProbe:
    """A probe, read where it is given as a file.

    Raises:
        InputError: if there is no such file, or it is no probe.
    """
    if isinstance(probe, str | Path):
        return ToxicProbe.load(probe)
    if not isinstance(probe, ToxicProbe):
        raise InputError(f"probe is a {type(probe).__name__}; give what mi.fit_probe made, or the file of one")
    return probe
