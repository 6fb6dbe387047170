"""The logit lens: what the residual stream would say at each depth, if the model stopped there.

    logit_t(x, point) = [W_U norm(stream at the point)]_t,       probability by the softmax over the vocabulary

for chosen tokens t, at the embedding and before and after every block's MLP. Final norm, unembedding, its bias, caps
and scales of logits are the model's own: its forward pass is run with the stream put in before the final norm, so that
the lens after the last block gives the model's own logits.

It does not show that a block reads or writes those tokens on purpose: early streams need not be written in the
unembedding's terms, and the final norm was fitted to the last block's stream alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mechinterp.data.conversations import Prompt
from mechinterp.data.storage.files import replacing
from mechinterp.errors import InputError
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import HookSite, h_mid, resid_post
from mechinterp.models.passes.middle_stream import has_middle_stream
from mechinterp.models.passes.positions import reading
from mechinterp.models.passes.sequences import Window, readings
from mechinterp.models.passes.upper_blocks import forward_replaced
from mechinterp.models.passes.watching import Progress, evaluating, run_until_seen, watching
from mechinterp.models.text.batches import Batch, length_batches, pad
from mechinterp.models.text.tokens import Position
from mechinterp.models.unembedding import with_scale_of

TokenSet = Literal["unsafe", "safe"]

EMBEDDING = "blocks.0.hook_resid_pre"
_LOGITS = 2**24  # logits held at a time: 64 MB in float32
_TOKENS = 2048  # of a batch: every measured token's stream is held at every point


@dataclass(frozen=True)
class LensToken:
    """A token that the lens looks for.

    Attributes:
        id: in the vocabulary.
        text: readable.
        token_set: whether it starts unsafe or safe answers.
    """

    id: int
    text: str
    token_set: TokenSet


@dataclass(frozen=True)
class LogitLens:
    """Mean logits and probabilities of chosen tokens at every depth, with what they were measured on.

    Attributes:
        points: hook points, in their order: the embedding, then mid (where there is one) and post of every block.
        tokens: whose logits.
        logits: means over the inputs of each group, float64.
        probabilities: likewise, in [0, 1].
        group_sizes: inputs in each group.
        position: the token positions averaged over in each input, see `tokens.Encoded.positions`.
        checkpoint, fingerprint: the model's name and weights.
    """

    points: tuple[str, ...]
    tokens: tuple[LensToken, ...]
    logits: Float[Tensor, "group point token"]
    probabilities: Float[Tensor, "group point token"]
    group_sizes: Float[Tensor, " group"]
    position: str
    checkpoint: str
    fingerprint: str

    def save(self, path: Path) -> Path:
        """Save as safetensors with the labels in its metadata."""
        tensors = {name: getattr(self, name).contiguous() for name in ("logits", "probabilities", "group_sizes")}
        labels = {name: getattr(self, name) for name in ("points", "position", "checkpoint", "fingerprint")}
        labels["tokens"] = [vars(token) for token in self.tokens]
        with replacing(path) as partial:
            save_file(tensors, partial, metadata={"logit_lens": json.dumps(labels)})
        return path

    @classmethod
    def load(cls, path: Path) -> LogitLens:
        """Load a saved lens."""
        with safe_open(path, framework="pt") as file:
            labels: dict[str, Any] = json.loads(file.metadata()["logit_lens"])
            tensors = {name: file.get_tensor(name) for name in ("logits", "probabilities", "group_sizes")}
        tokens = tuple(LensToken(**token) for token in labels.pop("tokens"))
        return cls(points=tuple(labels.pop("points")), tokens=tokens, **tensors, **labels)


def lens_points(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Where the stream can be read: the embedding, mid and post of every block, or post alone where there is no mid."""
    middle = has_middle_stream(checkpoint)
    blocks = range(checkpoint.n_blocks)
    return (EMBEDDING, *(point for b in blocks for point in ([h_mid(b)] if middle else []) + [resid_post(b)]))


@torch.no_grad()
def read_lens(
    checkpoint: Checkpoint,
    prompts: Sequence[Prompt],
    tokens: Sequence[LensToken],
    *,
    position: Position = "last",
    responses: Sequence[str] | None = None,
    groups: int = 128,
    max_tokens: int | None = None,
    truncate: bool = False,
    progress: Progress | None = None,
) -> LogitLens:
    """Read the stream of texts through the unembedding, at all depths in one pass.

    Args:
        checkpoint: the model; left exactly as it was.
        prompts: texts, or conversations in a chat format.
        tokens: whose logits and probabilities are wanted.
        position: of each text, see `Recording`: `last` (the last prompt token), `response` (mean over its tokens) or
            another; logits and probabilities are taken at every token, and then averaged.
        responses: texts teacher-forced after the prompts.
        groups: at most this many groups of inputs, see `Recording`.
        max_tokens: padded tokens per batch. By default 2,048, as the stream of every measured token is held at every
            point; on a GPU 8,192 for `last`.
        truncate: cut prompts that exceed the context from the left instead of raising.
        progress: called with (texts done, texts in all) of this process's share.

    Returns:
        The means; nothing per input, so that memory does not grow with the inputs.

    Raises:
        InputError: for no prompts or tokens, a token outside the vocabulary, an architecture without a final norm, or
            logits that are not finite.
    """
    _check(checkpoint, prompts, tokens, groups)
    points = lens_points(checkpoint)
    sites = [checkpoint.names.site(point) for point in points]
    ids = torch.tensor([token.id for token in tokens])
    read = readings(checkpoint, prompts, [position], responses=responses, truncate=truncate)
    n_groups = min(groups, len(prompts))
    sums = torch.zeros(2, n_groups, len(points), len(tokens), dtype=torch.float64)
    if max_tokens is None:
        max_tokens = 4 * _TOKENS if position == "last" and checkpoint.device.type != "cpu" else _TOKENS
    lengths = [len(r.encoded.ids) for r in read]
    batches = processes.share(list(length_batches(lengths, max_tokens, apart=checkpoint.names.short_context)))
    done, total = 0, sum(len(order) for order in batches)
    for order in batches:
        chosen = [read[i] for i in order]
        batch = pad([r.encoded for r in chosen], pad_id=checkpoint.padding_id, device=checkpoint.device)
        window = Window.of(chosen, position, batch)
        assert window is not None
        rows, columns, inputs, shares = _places(window)
        streams = streams_at(checkpoint, batch, sites, rows, columns)
        with evaluating(checkpoint.model), unembedding(checkpoint) as unembed:
            stream = torch.cat([streams.pop(point).to(unembed.device) for point in points])
            values = torch.stack(_look(unembed, stream, ids)).unflatten(1, (len(points), len(inputs)))
            sums.index_add_(1, inputs % n_groups, values.transpose(1, 2) * shares[:, None, None])
        done += len(order)
        if progress is not None:
            progress(done, total)
    processes.add_up([sums])
    if not bool(torch.isfinite(sums).all()):
        raise InputError(
            f"{checkpoint.source}: the logit lens gives values that are not finite; use a wider type (`dtype=float32`)"
        )
    sizes = torch.bincount(torch.arange(len(prompts)) % n_groups).double()
    logits, probabilities = sums / sizes[:, None, None]
    return LogitLens(
        points, tuple(tokens), logits, probabilities, sizes, position, checkpoint.name, checkpoint.fingerprint
    )


def _check(checkpoint: Checkpoint, prompts: Sequence[Prompt], tokens: Sequence[LensToken], groups: int) -> None:
    if not prompts:
        raise InputError("there are no prompts for the logit lens")
    if not tokens:
        raise InputError("there are no tokens for the logit lens; give at least one")
    if groups < 1:
        raise InputError(f"there must be at least one group of inputs, got {groups}")
    size = checkpoint.parameter(f"{checkpoint.names.module('unembed')}.weight").shape[0]
    if outside := [token.id for token in tokens if not 0 <= token.id < size]:
        raise InputError(f"tokens {outside} are not in the vocabulary of {checkpoint.source}, ids 0 to {size - 1}")


def streams_at(
    checkpoint: Checkpoint,
    batch: Batch,
    sites: Sequence[HookSite],
    rows: Int[Tensor, " n"],
    columns: Int[Tensor, " n"],
) -> dict[str, Float[Tensor, "n d_model"]]:
    """The stream of the measured tokens at every point, from one pass that ends with the last of them."""
    streams: dict[str, Tensor] = {}

    def see(hook: str, values: Tensor) -> None:
        values = values.reshape(*batch.input_ids.shape, values.shape[-1])
        streams[hook] = values[rows.to(values.device), columns.to(values.device)]

    with evaluating(checkpoint.model), watching(checkpoint.model, sites, see), reading(batch):
        run_until_seen(checkpoint.model, **batch.inputs())
    return streams


def _places(
    window: Window,
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Int[Tensor, " n"], Float[Tensor, " n"]]:
    """Of every measured token: its sequence and column, the input, and its share in the input's mean."""
    lengths = window.stop - window.first
    within = torch.cat([torch.arange(int(length)) for length in lengths])
    one = lengths.double().reciprocal()
    return (
        window.rows.repeat_interleave(lengths),
        window.first.repeat_interleave(lengths) + within,
        window.inputs.repeat_interleave(lengths),
        one.repeat_interleave(lengths),
    )


class Unembed:
    """The model's own way from the stream before the final norm to logits, see `unembedding`.

    Attributes:
        device: of the final norm, on which streams are wanted.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        norm = checkpoint.module("ln_final")
        self.device = next(norm.parameters(), checkpoint.model.get_input_embeddings().weight).device
        self.stream: Tensor | None = None
        self.scale_of: Tensor | None = None

    def __call__(
        self, stream: Float[Tensor, "row d_model"], scale_of: Float[Tensor, "row d_model"] | None = None
    ) -> Float[Tensor, "row vocabulary"]:
        """Logits of each row; if others are given the norm divides by their lengths (`with_scale_of`)."""
        checkpoint = self._checkpoint
        self.stream, self.scale_of = stream[:, None], None if scale_of is None else scale_of[:, None]
        token = torch.full((len(stream), 1), checkpoint.padding_id, device=checkpoint.device)
        logits: Tensor = checkpoint.model(input_ids=token, use_cache=False).logits
        return logits[:, 0]


@contextmanager
def unembedding(checkpoint: Checkpoint) -> Iterator[Unembed]:
    """For the time of the context the blocks do nothing, and the final norm gets the stream that it is given."""
    unembed = Unembed(checkpoint)
    norm = checkpoint.module("ln_final")
    own = norm.forward

    def given(_: Tensor) -> Tensor:
        assert unembed.stream is not None
        if unembed.scale_of is not None:
            return with_scale_of(own, unembed.stream, unembed.scale_of)
        return own(unembed.stream)

    with ExitStack() as stack:
        for block in range(checkpoint.n_blocks):
            module = checkpoint.module(f"blocks.{block}")
            stack.enter_context(forward_replaced(module, lambda hidden_states, *args, **kwargs: hidden_states))
        stack.enter_context(forward_replaced(norm, given))
        yield unembed


def _look(
    unembed: Unembed, stream: Float[Tensor, "n d_model"], ids: Int[Tensor, " token"]
) -> tuple[Float[Tensor, "n token"], Float[Tensor, "n token"]]:
    """Logits and probabilities of the tokens, float64 on the CPU; a part of the rows at a time."""
    logits, probabilities = [], []
    step = 16
    while len(stream):
        part, stream = stream[:step], stream[step:]
        found = unembed(part).float()
        step = max(16, _LOGITS // found.shape[1])
        some = found[:, ids.to(found.device)]
        logits.append(some.cpu().double())
        probabilities.append((some - found.logsumexp(1, keepdim=True)).exp().cpu().double())
    return torch.cat(logits), torch.cat(probabilities)
