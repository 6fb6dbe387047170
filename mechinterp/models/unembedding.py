"""What reads the residual stream last: the final norm's gain, the unembedding, and the tokens that a vector promotes.

    logits(v) = W_U v               without the final norm
    logits(v) = W_U (gain o v)      with it; LayerNorm subtracts the mean of v first

The norm also divides by the length of the whole stream, which one vector does not tell: logits of a vector rank tokens
and are no log-odds. A bias of the unembedding, and a cap on the logits (Gemma 2), belong to no vector and are left out.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from mechinterp.errors import InputError
from mechinterp.models.files.weights import LazyWeights
from mechinterp.models.text.batches import to_device

if TYPE_CHECKING:
    from mechinterp.models.checkpoints import Checkpoint

_ROWS, _VECTORS = 8192, 128  # of the unembedding and of the vectors at a time: 4 MB of logits, and rows in float32


@contextmanager
def unembedded_at(checkpoint: Checkpoint, rows: Sequence[int], columns: Sequence[int], width: int) -> Iterator[None]:
    """Only these positions of a batch are unembedded, in one row; logits of all would not fit with large vocabularies.

    A hook rather than `logits_to_keep`, which not every model takes and which keeps the same columns of every row. What
    an architecture does to logits after the unembedding (a cap, a scale) it does to these.

    Args:
        checkpoint: whose model is called in the context.
        rows, columns: of the positions.
        width: columns of the batch, padding included.
    """
    flat = torch.tensor(rows) * width + torch.tensor(columns)
    copies: dict[torch.device, Tensor] = {}

    def select(hidden: Tensor) -> Tensor:
        places = copies.setdefault(hidden.device, to_device(flat, hidden.device))
        return hidden.reshape(-1, hidden.shape[-1])[places][None]

    with _entering_unembedding(checkpoint, select):
        yield


@contextmanager
def last_unembedded(checkpoint: Checkpoint) -> Iterator[None]:
    """Of every pass only the last column is unembedded, as generation needs it; most models see to it themselves."""
    if "logits_to_keep" in inspect.signature(checkpoint.model.forward).parameters:
        yield
        return
    with _entering_unembedding(checkpoint, lambda hidden: hidden[:, -1:]):
        yield


@contextmanager
def _entering_unembedding(checkpoint: Checkpoint, select: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """What enters the unembedding is what `select` makes of it."""

    def hook(_: nn.Module, args: Any) -> Any:
        return (select(args[0]), *args[1:])

    handle = None
    try:
        handle = checkpoint.module("unembed").register_forward_pre_hook(hook)
        yield
    finally:
        if handle is not None:
            handle.remove()


@torch.no_grad()
def norm_gain(norm: Callable[[Tensor], Tensor], like: Tensor, width: int) -> tuple[Float[Tensor, " d_model"], bool]:
    """Gain of a norm, float32, and whether it also subtracts the mean (LayerNorm).

    Read off the module's behaviour on inputs of mean 0 and variance 1, so that every convention (Gemma stores the gain
    minus 1) gives the factor that is really applied.

    Args:
        norm: the module, or its forward.
        like: a tensor of the type and device of its input.
        width: d_model.
    """
    sign = torch.ones(width, dtype=torch.float32, device=like.device)
    sign[1::2] = -1.0
    ones = torch.ones_like(sign)

    def odd_part(x: Tensor) -> Tensor:
        x = x.to(like.dtype)
        return (norm(x[None, None]) - norm(-x[None, None]))[0, 0].float() / 2

    gain = odd_part(sign) * sign
    subtracts_mean = bool(odd_part(ones).abs().max() < 1e-3 * gain.abs().max())
    return gain, subtracts_mean


@torch.no_grad()
def with_scale_of(
    norm: Callable[[Tensor], Tensor],
    streams: Float[Tensor, "*n d_model"],
    others: Float[Tensor, "*n d_model"],
) -> Float[Tensor, "*n d_model"]:
    """What a norm would make of streams, did it divide them by the lengths of others in place of their own.

    Args:
        norm: a norm.
        streams: what is read.
        others: row by row the streams whose lengths are taken; themselves they come out as the norm makes them.
    """
    gain, subtracts_mean = norm_gain(norm, others, others.shape[-1])

    def gained(stream: Tensor) -> Tensor:
        wide = stream.to(torch.promote_types(stream.dtype, torch.float32))
        return (wide - wide.mean(-1, keepdim=True) if subtracts_mean else wide) * gain.to(wide)

    bias, other = norm(torch.zeros_like(others)), gained(others)
    scale = ((norm(others) - bias) * other).sum(-1, keepdim=True) / other.square().sum(-1, keepdim=True)
    return (bias + gained(streams) * scale).to(streams.dtype)


def final_norm_gain(weights: Checkpoint | LazyWeights) -> tuple[Float[Tensor, " d_model"], bool]:
    """Gain of the final norm and whether it subtracts the mean, of a model or of its files, see `norm_gain`."""
    if not isinstance(weights, LazyWeights):
        return weights.final_norm_gain()
    path = weights.names.module("ln_final")
    norm = copy.deepcopy(weights.names.skeleton.get_submodule(path)).to_empty(device="cpu")
    norm.load_state_dict({name: weights.tensor(f"{path}.{name}") for name, _ in norm.named_parameters()}, assign=True)
    like = next(norm.parameters(), torch.empty(0))
    return norm_gain(norm, like, weights.names.d_model)


def through_final_norm(
    weights: Checkpoint | LazyWeights, vectors: Float[Tensor, "*n d_model"]
) -> Float[Tensor, "*n d_model"]:
    """Vectors as the final norm passes them on, up to the stream's length: the gain times v, less its mean (LayerNorm).

    Args:
        weights: a model, or the files of one.
        vectors: in the residual stream before the final norm.

    Returns:
        In float32, on the CPU.
    """
    gain, subtracts_mean = final_norm_gain(weights)
    vectors = vectors.detach().cpu().float()
    return (vectors - vectors.mean(-1, keepdim=True) if subtracts_mean else vectors) * gain.cpu()


def back_through_final_norm(
    weights: Checkpoint | LazyWeights, direction: Float[Tensor, "*n d_model"]
) -> Float[Tensor, "*n d_model"]:
    """The direction before the final norm along which a read-out after it moves, up to the stream's length.

    The transpose of `through_final_norm`: w . (gain o v) = (w o gain) . v, and where LayerNorm subtracts the mean of v,
    the mean of w o gain is no part of what is read.

    Args:
        weights: a model, or the files of one.
        direction: of a read-out after the final norm.

    Returns:
        In float32, on the CPU.
    """
    gain, subtracts_mean = final_norm_gain(weights)
    pulled = direction.detach().cpu().float() * gain.cpu()
    return pulled - pulled.mean(-1, keepdim=True) if subtracts_mean else pulled


def unembedding(weights: Checkpoint | LazyWeights) -> Float[Tensor, "vocabulary d_model"]:
    """W_U as it is stored, a row for each token."""
    name = f"{weights.names.module('unembed')}.weight"
    if not isinstance(weights, LazyWeights):
        return weights.parameter(name).detach()
    if name not in weights.stored.recipes:  # tied to the embedding, under whose name it is stored
        name = next((own for own, names in weights.stored.aliases.items() if name in names), name)
    return weights.tensor(name)


@dataclass(frozen=True)
class TopTokens:
    """The tokens that a vector promotes most, and those that it lowers most; the strongest first in both.

    Attributes:
        tokens, logits: at the upper end.
        opposite, opposite_logits: at the lower end.
    """

    tokens: tuple[str, ...]
    logits: tuple[float, ...]
    opposite: tuple[str, ...]
    opposite_logits: tuple[float, ...]


@torch.no_grad()
def top_tokens(
    weights: Checkpoint | LazyWeights,
    vectors: Float[Tensor, "n d_model"],
    *,
    k: int = 10,
    final_norm: bool = False,
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> tuple[TopTokens, ...]:
    """What vectors of the residual stream say through the unembedding.

    Args:
        weights: a model, or the files of one.
        vectors: as they are written into the residual stream; of any length, which scales the logits.
        k: tokens at either end; rows of the unembedding that stand for no token of the tokenizer are left out.
        final_norm: pass them through the final norm's gain first, see `through_final_norm`.
        tokenizer: that of the checkpoint if not given; files have none of their own.

    Returns:
        One for each vector.

    Raises:
        InputError: if there is no tokenizer, k is not at least 1, or the vectors are of another width or not finite.
    """
    tokenizer = getattr(weights, "tokenizer", None) if tokenizer is None else tokenizer
    if tokenizer is None:
        raise InputError(
            f"{weights.names.source}: files of weights have no tokenizer; give the one that belongs to them"
        )
    if k < 1:
        raise InputError(f"the number of tokens must be at least 1, got {k}")
    if vectors.dim() != 2 or vectors.shape[1] != weights.names.d_model:
        raise InputError(
            f"vectors of shape {tuple(vectors.shape)} are not [n, {weights.names.d_model}], the width of the residual "
            f"stream of {weights.names.source}"
        )
    if bad := int((~torch.isfinite(vectors)).any(1).sum()):
        raise InputError(f"{bad} of {len(vectors)} vectors are not finite")
    rows = unembedding(weights)
    rows = rows[: len(tokenizer)]
    read = through_final_norm(weights, vectors) if final_norm else vectors.detach().float()
    found: list[TopTokens] = []
    for some in read.split(_VECTORS):
        some = some.to(rows.device)
        logits = torch.cat([some @ part.float().T for part in rows.split(_ROWS)], dim=1)
        ends = [logits.topk(min(k, logits.shape[1]), largest=largest) for largest in (True, False)]
        values = [end.values.tolist() for end in ends]
        texts = [[[_text(tokenizer, i) for i in ids] for ids in end.indices.tolist()] for end in ends]
        for row in range(len(some)):
            upper, lower = ((tuple(texts[e][row]), tuple(values[e][row])) for e in (0, 1))
            found.append(TopTokens(*upper, *lower))
    return tuple(found)


def token_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[str]:
    """Tokens as readable text, the space before a word kept; a part of a character by the tokenizer's own name."""
    return [_text(tokenizer, token) for token in ids]


def _text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    name = str(tokenizer.convert_ids_to_tokens(token))
    if name.startswith("\u2581"):  # SentencePiece, which drops the space when it decodes
        return name.replace("\u2581", " ")
    text = tokenizer.decode([token])
    if isinstance(text, str) and name.startswith("\u0120") and not text.startswith(" "):
        text = f" {text}"  # byte-level BPE, whose decoder was told to strip it
    return name if not isinstance(text, str) or not text or "\ufffd" in text else text
