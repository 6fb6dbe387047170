"""Whether two checkpoints can be compared: one architecture, one size, one tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mechinterp.data.counting import many
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.files.configs import unlike_configs
from mechinterp.models.text.tokenizer import special_tokens, tokenizer_fingerprint


def check_comparable(base: Checkpoint, others: Sequence[Checkpoint]) -> None:
    """Raise one `InputError` listing every difference that makes two checkpoints incomparable.

    Architecture, settings that change what is computed, parameter names and shapes, vocabulary and special tokens must
    agree; skeletons will do.
    """
    for other in others:
        if differences := [*unlike_models(base, other), *_unlike_tokenizers(base, other)]:
            raise InputError(
                f"{other.source} cannot be compared with {base.source}: they differ in {'; '.join(differences)}"
            )


def check_same_tokens(base: Checkpoint, other: Checkpoint, texts: Sequence[str]) -> None:
    """Raise `InputError` if the tokenizers make different tokens of a text: the two would not read the same.

    One vocabulary does not settle it: merges, a blank put first or an added BOS may differ.
    """
    if tokenizer_fingerprint(base.tokenizer) == tokenizer_fingerprint(other.tokenizer):
        return
    ids = [checkpoint.tokenizer(list(texts), verbose=False)["input_ids"] for checkpoint in (base, other)]
    for text, one, two in zip(texts, *ids, strict=True):
        if one != two:
            raise InputError(
                f"{other.source} cannot be compared with {base.source}: their tokenizers make {two[:6]}... and "
                f"{one[:6]}... of {text[:40]!r}; give both the same tokenizer files"
            )


def unlike_models(base: Checkpoint, other: Checkpoint) -> Iterator[str]:
    """What two models differ in that makes them incomparable: architecture, parameters, settings that matter."""
    if type(base.model) is not type(other.model):
        yield f"architecture {type(base.model).__name__} and {type(other.model).__name__}"
        return
    shapes, others = base.shapes, other.shapes
    unequal = sorted(name for name in shapes.keys() | others.keys() if shapes.get(name) != others.get(name))
    if unequal:
        first = unequal[0]
        yield (
            f"{many(len(unequal), 'parameter')}, the first is {first}: "
            f"{shapes.get(first, 'absent')} and {others.get(first, 'absent')}" + (_cut_back(base, other) or "")
        )
    if unlike := unlike_configs(base.model.config, other.model.config):
        yield f"the config: {unlike}"


def _cut_back(base: Checkpoint, other: Checkpoint) -> str | None:
    """What to do where two models differ in rows of the embeddings alone, as a token added for padding leaves it."""
    shapes, others = base.shapes, other.shapes
    unequal = [name for name in shapes.keys() | others.keys() if shapes.get(name) != others.get(name)]
    rows = [checkpoint.model.get_input_embeddings().weight.shape[0] for checkpoint in (base, other)]
    if rows[0] == rows[1] or any(shapes.get(name, ())[1:] != others.get(name, ())[1:] for name in unequal):
        return None
    return (
        f" ({rows[0]} and {rows[1]} rows of the vocabulary; if the further ones are for padding alone, cut them off "
        f"with transformers' resize_token_embeddings({min(rows)}) and save again)"
    )


def _unlike_tokenizers(base: Checkpoint, other: Checkpoint) -> Iterator[str]:
    ids, others = base.tokenizer.get_vocab(), other.tokenizer.get_vocab()
    unequal = sorted(token for token in ids.keys() | others.keys() if ids.get(token) != others.get(token))
    if unequal and not all(_pads_behind(one, two, unequal) for one, two in ((base, other), (other, base))):
        first = unequal[0]
        yield (
            f"tokenizer vocabulary ({len(ids)} and {len(others)} tokens; {len(unequal)} differ, for example {first!r}: "
            f"id {ids.get(first, 'none')} and {others.get(first, 'none')}): give both the same tokenizer files"
        )
    # but for the padding token, which many trainers add and which is always masked
    special = [special_tokens(checkpoint.tokenizer) for checkpoint in (base, other)]
    if special[0] != special[1]:
        yield f"special tokens ({special[0]} and {special[1]}): give both the same tokenizer files"


def _pads_behind(one: Checkpoint, two: Checkpoint, tokens: Sequence[str]) -> bool:
    """Whether those of these tokens that the first has were added for padding, behind all that both have."""
    ids, others = one.tokenizer.get_vocab(), two.tokenizer.get_vocab()
    last = max((i for token, i in ids.items() if others.get(token) == i), default=-1)
    pad = one.tokenizer.pad_token
    return all(token == pad and token not in others and ids[token] > last for token in tokens if token in ids)
