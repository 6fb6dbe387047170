"""Recording one checkpoint on the inputs of a comparison: one pass over each text, and the weights block by block."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mechinterp.audit.evidence.inputs import Inputs
from mechinterp.audit.evidence.of_checkpoint import Evidence, Stream
from mechinterp.audit.evidence.recording_prompts import decompose_prompts
from mechinterp.audit.evidence.settings import PLACES, TEXTS, Text
from mechinterp.audit.top_vectors import vectors_at
from mechinterp.errors import InputError
from mechinterp.measures.large_matrices import products_and_lengths
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import attn_out, h_down, h_mid, mlp_out, resid_post, resid_pre
from mechinterp.models.passes.generation import continue_greedily
from mechinterp.models.passes.lens import read_lens
from mechinterp.models.passes.middle_stream import has_middle_stream
from mechinterp.models.passes.recorded import Recording
from mechinterp.models.passes.recording import record_positions
from mechinterp.models.text.tokens import Encoded, Position, generated_tokens

logger = logging.getLogger(__name__)


def gather_evidence(
    checkpoint: Checkpoint, inputs: Inputs, *, is_base: bool = False, base: Checkpoint | None = None
) -> Evidence:
    """Record one checkpoint on the inputs of a comparison.

    Args:
        checkpoint: the model; left as it was.
        inputs: of the comparison.
        is_base: also keep every input's write along every direction; the base's own greedy tokens are the fixed ones.
        base: beside it in memory, where `inputs.per_prompt` has directions: only then are they measured along.

    Raises:
        InputError: if activations are not finite.
    """
    units = torch.stack([direction.double() / direction.double().norm() for direction in inputs.directions.values()])
    readouts, null_readouts = _readouts(checkpoint, units, inputs.null_directions)
    biases = torch.stack([units @ checkpoint.value_bias(b).double().cpu() for b in range(checkpoint.n_blocks)], dim=1)
    session = _Session(checkpoint, inputs, units, readouts, biases, is_base)
    recordings, middle = session.fixed()
    for place in inputs.places[len(PLACES) :]:
        if place.text == "on_policy" and is_base and (fixed := session.name_of(place.position, "fixed")):
            recordings[place.name] = recordings[fixed]  # its own text is the fixed one
        else:
            recordings[place.name] = session.continued(place.position, place.text)
    first_tokens = session.followed(recordings)
    for recording in recordings.values():
        recording.check_finite(checkpoint.source)
    below = checkpoint if is_base else base
    place_blocks, place_neurons = zip(*inputs.vectors.places, strict=True)
    return Evidence(
        checkpoint=checkpoint.name,
        fingerprint=checkpoint.fingerprint,
        recordings={name: session.kept(recording) for name, recording in recordings.items()},
        readouts={name: readouts[i].clone() for i, name in enumerate(inputs.directions)},
        biases={name: biases[i].clone() for i, name in enumerate(inputs.directions)},
        values=checkpoint.value_matrix(inputs.block).cpu().clone(memory_format=torch.contiguous_format),  # as loaded
        middle=middle,
        null_readouts=null_readouts,
        vectors=vectors_at(checkpoint, place_blocks, place_neurons),
        stream={name: session.stream(recording) for name, recording in recordings.items()} if session.posts else {},
        first_tokens=first_tokens,
        lens=read_lens(checkpoint, inputs.prompts, inputs.lens_tokens, truncate=inputs.truncate)
        if inputs.lens_tokens
        else None,
        per_prompt=decompose_prompts(below, checkpoint, inputs) if inputs.per_prompt and below is not None else None,
    )


def _readouts(
    checkpoint: Checkpoint, units: Float[Tensor, "direction d_model"], null: Float[Tensor, "draw d_model"]
) -> tuple[Float[Tensor, "direction block d_mlp"], Float[Tensor, "draw block d_mlp"]]:
    """g of every block along the directions, float64, and along the random ones, float32; each W_V is read once."""
    wanted, found, found_null = torch.cat([units, null]), [], []
    for block in range(checkpoint.n_blocks):
        products = products_and_lengths(checkpoint.value_matrix(block), wanted)[0].cpu()
        found.append(products[: len(units)])
        found_null.append(products[len(units) :].float())
    return torch.stack(found, dim=1), torch.stack(found_null, dim=1)


@dataclass(frozen=True)
class _Session:
    """One checkpoint being recorded."""

    checkpoint: Checkpoint
    inputs: Inputs
    units: Float[Tensor, "direction d_model"]
    readouts: Float[Tensor, "direction block d_mlp"]
    biases: Float[Tensor, "direction block"]
    is_base: bool

    @cached_property
    def hooks(self) -> list[str]:
        """What flows into every W_V."""
        return [h_down(block) for block in range(self.checkpoint.n_blocks)]

    @cached_property
    def posts(self) -> list[str]:
        """The stream after every block; empty for an architecture without these hook points."""
        return self._there([resid_post(block) for block in range(self.checkpoint.n_blocks)])

    @cached_property
    def parts(self) -> list[str]:
        """What is added to the stream besides h_down's part; empty for an architecture without these hook points."""
        blocks = range(self.checkpoint.n_blocks)
        added = [attn_out(block) for block in blocks]
        if self.checkpoint.names.has("blocks.0.ln2_post"):  # elsewhere the MLP's own output, which h_down tells
            added += [mlp_out(block) for block in blocks]
        return self._there([resid_pre(0), *added]) if self.posts else []

    def _there(self, hooks: list[str]) -> list[str]:
        try:
            for hook in hooks:
                self.checkpoint.names.site(hook)
        except InputError as error:
            logger.warning("the stream is not decomposed: %s", error)
            return []
        return hooks

    def name_of(self, position: Position, text: Text) -> str | None:
        """The name of the place of a position and text, if there is one."""
        found = [place.name for place in self.inputs.places if (place.position, place.text) == (position, text)]
        return found[0] if found else None

    def read(self, positions: Sequence[Position], at_region: Sequence[str] = (), **more: Any) -> dict[str, Recording]:
        """Record h_down of every block and the stream, in one pass."""
        of_stream = [*self.posts, *self.parts]
        project: dict[str, Tensor] = dict.fromkeys(of_stream, self.units.T)
        if self.is_base:
            project |= {hook: self.readouts[:, block].T for block, hook in enumerate(self.hooks)}
        return record_positions(
            self.checkpoint,
            self.inputs.prompts,
            list(dict.fromkeys([*self.hooks, *at_region, *of_stream])),
            positions,
            keep={"last": at_region},
            project=project,
            together=of_stream,
            truncate=self.inputs.truncate,
            **more,
        )

    def fixed(self) -> tuple[dict[str, Recording], dict[str, Tensor]]:
        """At the places that are always measured; and the middle stream of some inputs."""
        at_region = [h_down(self.inputs.block)]
        if has_middle_stream(self.checkpoint):
            at_region.append(h_mid(self.inputs.block))
        positions, left_out = [place.position for place in PLACES], self.inputs.sinks or False
        found = self.read(positions, at_region, responses=self.inputs.responses, without_sinks=left_out)
        kept = found["last"].inputs
        middle = {hook: kept[hook][list(self.inputs.middle)] for hook in at_region} if len(at_region) > 1 else {}
        return {place.name: found[place.position] for place in PLACES}, middle

    def continued(self, position: Position, text: Text) -> Recording:
        """After the prompts, on the base's greedy tokens or the checkpoint's own."""
        return self.read([position], **self.continuations(text))[position]

    def continuations(self, text: Text) -> dict[str, Any]:
        """The prompts with greedy tokens after them; and what is left out, in its own text the checkpoint's sinks."""
        if text == "fixed" or self.is_base:
            return {"continuations": self.inputs.continuations, "without_sinks": self.inputs.sinks or False}
        return {"continuations": self._own, "without_sinks": self.inputs.sinks is not None}

    @cached_property
    def _own(self) -> Sequence[Encoded]:
        positions = [generated_tokens(place.position) or 0 for place in self.inputs.places if place.text == "on_policy"]
        return continue_greedily(
            self.checkpoint,
            self.inputs.prompts,
            max_new_tokens=max([*positions, self.inputs.first_tokens]),
            truncate=self.inputs.truncate,
        )

    def followed(self, recordings: Mapping[str, Recording]) -> dict[Text, Float[Tensor, " k"]]:
        """Mean activations of the followed neurons over the first greedy tokens, on the same text and on its own."""
        found: dict[Text, Tensor] = {}
        texts = TEXTS if self.inputs.followed else ()
        position = f"generated:{self.inputs.first_tokens}"
        wanted: dict[int, list[int]] = {}
        for block, neuron in self.inputs.followed:
            wanted.setdefault(block, []).append(neuron)
        for text in texts:
            if text == "on_policy" and self.is_base:
                found[text] = found["fixed"].clone()  # its own text is the fixed one
            elif name := self.name_of(position, text):
                means = {block: recordings[name].mean(h_down(block))[neurons] for block, neurons in wanted.items()}
                found[text] = self._in_order(wanted, means)
            else:
                found[text] = self._in_order(wanted, self._means(wanted, position, self.continuations(text)))
        return found

    def _means(
        self, wanted: Mapping[int, list[int]], position: Position, continuations: Mapping[str, Any]
    ) -> dict[int, Tensor]:
        """Mean activations of some neurons of each block."""
        hooks = [h_down(block) for block in wanted]
        found = record_positions(
            self.checkpoint, self.inputs.prompts, hooks, [position], together=hooks, **continuations
        )[position]
        found.check_finite(self.checkpoint.source)
        return {block: found.mean(h_down(block))[neurons] for block, neurons in wanted.items()}

    def _in_order(self, wanted: Mapping[int, list[int]], means: Mapping[int, Tensor]) -> Float[Tensor, " k"]:
        by_place = {
            (block, neuron): value
            for block, neurons in wanted.items()
            for neuron, value in zip(neurons, means[block], strict=True)
        }
        return torch.stack([by_place[place] for place in self.inputs.followed])

    def kept(self, recording: Recording) -> Recording:
        """The means of h_down; of single inputs only what flows into the toxic region, and the writes."""
        return replace(
            recording,
            groups={hook: recording.groups[hook] for hook in self.hooks},
            non_finite={hook: recording.non_finite[hook] for hook in self.hooks},
            inputs={hook: value for hook, value in recording.inputs.items() if hook == h_down(self.inputs.block)},
            projections={hook: value for hook, value in recording.projections.items() if hook in self.hooks},
        )

    def stream(self, recording: Recording) -> Stream:
        """What is kept of the stream: the writes of its parts if they add up to it, and the means after each block."""
        means = torch.cat([recording.groups[hook] for hook in self.posts])
        sizes = recording.group_sizes
        group = torch.arange(recording.n_inputs) % len(sizes)
        writes = {}
        for hook in [*self.parts, self.posts[-1]] if self.parts else []:
            rows = recording.projections[hook].double()
            total = torch.zeros(len(sizes), rows.shape[1], dtype=torch.float64)
            writes[hook] = total.index_add_(0, group, rows) / sizes[:, None]
        return Stream(writes if writes and self._adds_up(recording, writes) else {}, means)

    def _adds_up(self, recording: Recording, writes: Mapping[str, Tensor]) -> bool:
        """Whether the parts sum to the stream after the last block, up to the rounding of the model's own type."""
        weights = recording.group_sizes / recording.group_sizes.sum()
        total, last = torch.zeros(len(self.units), dtype=torch.float64), self.posts[-1]
        for hook in self.parts:
            total += weights @ writes[hook]
        if mlp_out(0) not in self.parts:
            means = torch.stack([recording.mean(hook) for hook in self.hooks])
            total += (self.readouts * means).sum((1, 2)) + self.biases.sum(1)
        off = float((total - weights @ writes[last]).abs().max() / recording.mean(last).norm())
        narrow = self.checkpoint.model.dtype in (torch.bfloat16, torch.float16)
        if off > (0.05 if narrow else 1e-3):
            logger.warning(
                "%s: embedding, attention and MLP do not add up to the residual stream (off by %.2g of its length), "
                "so it is not decomposed",
                self.checkpoint.source,
                off,
            )
            return False
        return True
