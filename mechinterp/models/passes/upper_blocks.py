"""The model from one block's MLP upward, as a function of its parameters, on texts that passed the blocks below once.

What lies below a trained matrix is constant, so the stream in front of it is computed once and each call runs only what
is above. Calls go through the model's own forward pass, whose lower blocks let their input pass and whose edited block
returns h_mid + write: masks, position embeddings, the final norm, the unembedding and what else an architecture does to
logits stay the model's own.

Texts stand side by side in one batch. Each may have parameters of its own (one copy of the matrix per text), or all
share one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call, vmap

from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.middle_stream import adds_up
from mechinterp.models.passes.watching import run_until_seen, watching
from mechinterp.models.text.batches import pad
from mechinterp.models.text.tokens import Encoded

Component = Literal["mlp.out", "mlp"]
"""What is trained in a block: the MLP's second matrix W_V, or the whole MLP."""

_ENOUGH = 16  # rows from which on oneMKL multiplies each as among many (32,000 columns)
_PIECE = 192  # positions that it sums up in one piece

Parameters = Mapping[str, Tensor]
"""Values by the model's own parameter names, each in the parameter's shape, or [copy, *shape]."""


@dataclass(frozen=True)
class Scored:
    """A text and the positions whose next-token predictions are scored.

    Attributes:
        ids: the whole text.
        positions: indices into `ids`; the logits there are what `Upward` gives, in this order.
        labels: the token that each of them should predict; may be empty where none is needed.
    """

    ids: Sequence[int]
    positions: Sequence[int]
    labels: Sequence[int] = field(default=())


class _Caught(Exception):  # noqa: N818 - control flow, not an error
    """What was about to enter the unembedding."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


class Upward:
    """Logits at the scored positions of some texts, as a function of the MLP parameters of some blocks.

    Args:
        checkpoint: the model; left as it was.
        blocks: the blocks whose parameters are given on every call. Everything below the lowest is computed here, once.
        texts: what is read; padded on the right.
        component: what of their MLP the parameters are of.
        exact: of one text, also run what contributes nothing, so that every product has as many rows as in a pass of
            the whole text, or enough of them: matrix libraries add up in another order where there are few. Logits and
            gradients are then those of the whole pass to the last bit in float32 wherever the library multiplies few
            rows by the unembedding as it does many; oneMKL does for texts of up to some 200 tokens, else the last bits
            differ.

    Raises:
        InputError: if a block is not h_mid + MLP write (parallel attention and MLP, or a norm after the addition).
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        blocks: Sequence[int],
        texts: Sequence[Scored],
        component: Component = "mlp.out",
        *,
        exact: bool = False,
    ) -> None:
        names, lowest = checkpoint.names, min(blocks)
        self.model = checkpoint.model
        self._every = [self.model.get_submodule(names.module(f"blocks.{b}")) for b in range(names.n_blocks)]
        self._lower = self._every[: lowest + 1]
        self._edited = {names.module(f"blocks.{b}.{component}"): lowest < b for b in sorted(blocks)}
        self._unembed = checkpoint.module("unembed")
        post = f"blocks.{lowest}.ln2_post"
        self._post_norm = checkpoint.module(post) if names.has(post) else nn.Identity()
        batch = pad(
            [Encoded.of(text.ids, 1) for text in texts],
            pad_id=checkpoint.padding_id,
            device=checkpoint.device,
        )
        shape = batch.input_ids.shape
        sites = [
            names.site(f"blocks.{lowest}.{point}")
            for point in (f"{component}.hook_in", "hook_resid_mid", "hook_resid_post")
        ]
        seen: dict[str, Tensor] = {}
        with watching(self.model, sites, seen.__setitem__):
            run_until_seen(self.model, **batch.inputs())
        # OPT flattens the positions of a batch in its MLP
        inflow, middle, after = (seen[site.name].reshape(*shape, -1) for site in sites)
        with torch.no_grad():
            module = self.model.get_submodule(next(iter(self._edited)))
            few = (slice(None), slice(0, 4))
            write = self._post_norm(module(inflow[few].contiguous())).to(middle.device)
            if not adds_up(middle[few], write, after[few]):
                raise InputError(
                    f"{names.source}: block {lowest} of {type(self.model).__name__} is not h_mid + MLP write "
                    "(parallel attention and MLP, or a norm after the addition), which editing relies on"
                )
        self.lengths = [len(text.positions) for text in texts]
        self._extra = 0
        exact = exact and len(texts) == 1
        if exact:
            texts = [self._with_extra(texts[0])]
        # Gradients are sums over positions. A product of so few is summed in one piece, in which leading zeros change
        # nothing; a bias' is not.
        biased = any(getattr(self.model.get_submodule(path), "bias", None) is not None for path in self._edited)
        whole = exact and (shape[1] > _PIECE or biased or component != "mlp.out")
        counts = torch.tensor([len(text.positions) for text in texts])
        rows = torch.repeat_interleave(torch.arange(len(texts)), counts)
        columns = torch.tensor([position for text in texts for position in text.positions])
        ids = batch.input_ids
        if lowest == names.n_blocks - 1 and not whole:
            # Above the last block no position looks at another: only the scored ones are run.
            places = torch.zeros(len(texts), int(counts.max()), dtype=torch.long)
            for row, text in enumerate(texts):
                places[row, : len(text.positions)] = torch.tensor(text.positions)
            columns = torch.cat([torch.arange(count) for count in counts.tolist()])
            own = torch.arange(len(texts))[:, None]
            inflow, middle, ids = inflow[own, places], middle[own, places], ids[own, places]
        self._inflow, self._middle, self._ids = inflow, middle, ids
        self._scored = (rows, columns)

    def __call__(self, parameters: Parameters, *, copies: bool = False) -> Float[Tensor, "scored vocabulary"]:
        """Logits at the scored positions, those of the first text first.

        Args:
            parameters: of the component in the edited blocks; others of it are the model's own.
            copies: every text has a copy of its own; the parameters have one axis more, in front.
        """
        with self._running(parameters, copies) as stack:
            unembed = self._unembed.forward
            stack.enter_context(forward_replaced(self._unembed, lambda hidden: unembed(self._chosen(hidden))))
            output = self.model(input_ids=self._ids, use_cache=False)
        return output.logits.flatten(0, 1)[self._extra :]  # a view, whose gradient is not written anew

    def before_unembedding(self, parameters: Parameters, *, copies: bool = False) -> Float[Tensor, "scored d_model"]:
        """What enters the unembedding at the scored positions; `unembedded` gives the logits of it.

        Args:
            parameters, copies: as in a call.
        """
        with self._running(parameters, copies) as stack:
            stack.enter_context(forward_replaced(self._unembed, self._caught))
            try:
                self.model(input_ids=self._ids, use_cache=False)
            except _Caught as caught:
                return caught.hidden[0, self._extra :]
        raise RuntimeError(f"{type(self.model).__name__} has not called its unembedding")

    def unembedded(self, hidden: Float[Tensor, "row d_model"]) -> Float[Tensor, "row vocabulary"]:
        """Logits of what `before_unembedding` gave, of several calls if need be."""
        with ExitStack() as stack:
            for module in self._every:
                stack.enter_context(forward_replaced(module, pass_through))
            unembed = self._unembed.forward
            stack.enter_context(forward_replaced(self._unembed, lambda _: unembed(hidden[None])))
            output = self.model(input_ids=self._ids[:1, :1], use_cache=False)
        return output.logits[0]

    def _caught(self, hidden: Float[Tensor, "text pos d_model"]) -> Tensor:
        raise _Caught(self._chosen(hidden))

    @contextmanager
    def _running(self, parameters: Parameters, copies: bool) -> Iterator[ExitStack]:
        """For the time of the context the model computes only what is above, with these parameters."""
        with ExitStack() as stack:
            writes: list[Tensor] = []
            for path, above in self._edited.items():
                module = self.model.get_submodule(path)
                own = {name: parameters[f"{path}.{name}"] for name, _ in module.named_parameters()}
                forward = with_parameters(module, own, copies)
                if above:
                    stack.enter_context(forward_replaced(module, forward))
                else:
                    writes.append(self._post_norm(forward(self._inflow)))
            after = self._middle + writes[0].to(self._middle.device)
            for module in self._lower[:-1]:
                stack.enter_context(forward_replaced(module, pass_through))
            stack.enter_context(forward_replaced(self._lower[-1], lambda *args, **kwargs: after))
            yield stack

    def _with_extra(self, text: Scored) -> Scored:
        """At least `_ENOUGH` positions to unembed, if the text has as many; those in front are cut off again."""
        free = sorted(set(range(len(text.ids))) - set(text.positions), reverse=True)
        extra = free[: max(0, _ENOUGH - len(text.positions))]
        self._extra = len(extra)
        return Scored(text.ids, [*extra, *text.positions], text.labels)

    def _chosen(self, hidden: Float[Tensor, "text pos d_model"]) -> Float[Tensor, "1 scored d_model"]:
        return hidden[self._scored][None]


def with_parameters(module: nn.Module, parameters: Parameters, copies: bool) -> Callable[[Tensor], Tensor]:
    """A module's forward with other parameters; with `copies`, one set for each equal part of the batch.

    Args:
        parameters: by the module's own names.
        copies: they have an axis [copy] in front, and the batch consists of as many equal parts, in their order.
    """
    original = module.forward  # which the result may come to stand in for

    def own(values: dict[str, Tensor], hidden: Tensor) -> Tensor:
        with forward_replaced(module, original):
            return functional_call(module, values, (hidden,))

    if not copies:
        return lambda hidden: own(dict(parameters), hidden)
    count = len(next(iter(parameters.values())))
    if count == 1:
        alone = {name: value.squeeze(0) for name, value in parameters.items()}
        return lambda hidden: own(alone, hidden)

    def forward(hidden: Tensor) -> Tensor:
        parts = hidden.reshape(count, hidden.shape[0] // count, *hidden.shape[1:])
        return vmap(own)(dict(parameters), parts).reshape(*hidden.shape[:-1], -1)

    return forward


@contextmanager
def forward_replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a module compute something else; afterwards it is what it was.

    accelerate and compilers put a forward of their own on the instance; it comes back.
    """
    own = module.__dict__.get("forward")
    try:
        module.forward = forward
        yield
    finally:
        del module.forward
        if own is not None:
            module.forward = own


def pass_through(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """The forward of a block that does nothing."""
    return hidden_states
