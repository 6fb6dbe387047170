"""Recording: means of activations at named hook points, streamed over inputs through the model's own forward pass.

    a = mean over inputs x of h(x),      h(x) = mean over the measured positions of x

One pass answers for any number of hook points and positions, and ends as soon as the last wanted module has been seen.
Similar lengths share a batch, and the batches share a budget of tokens. Memory does not grow with the number of inputs:
sums are kept for a fixed number of groups of inputs (input i belongs to group i mod n), so that intervals over inputs
can be had by resampling groups; with no more inputs than groups each input is its own. Under a launcher every process
reads its share of the batches, and the sums are joined once (`mechinterp.models.processes`).

A recording describes activations; that they cause anything is not established by it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mechinterp.data.showing import shown
from mechinterp.data.storage.files import replacing
from mechinterp.data.storage.labels import check_dimensions, check_numbers, typed
from mechinterp.errors import InputError
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.middle_stream import check_middle_stream
from mechinterp.models.passes.positions import reading
from mechinterp.models.passes.sequences import OnDevices, Window, readings
from mechinterp.models.passes.watching import Progress, evaluating, run_until_seen, watching
from mechinterp.models.text.tokens import Encoded, Position, length_batches, pad


@dataclass(frozen=True)
class Recording:
    """Group means of activations, with what they were measured on.

    Attributes:
        groups: per hook point, mean over the inputs of each group, float64 [group, d]; over all of them, [1, d], where
            no more was asked for.
        group_sizes: inputs in each group, [group].
        inputs: per kept hook point, the value of every input in the given order, [input, d] in float32 (float64 of a
            float64 model).
        projections: per projected hook point, h(x) P of every input, float64 [input, k].
        lengths: per measured hook point, the mean over the positions of each input of the length of what is there,
            [input]; vectors that point different ways are longer than their mean, so that it is not ||h(x)||.
        non_finite: per hook point, how many measured values were NaN or infinite (they are kept, so the means show it).
        position: the token positions averaged over in each input, see `tokens.Encoded.positions`.
        checkpoint: name of the model recorded.
        fingerprint: of its weights.
        tokenizer: fingerprint of its tokenizer.
    """

    groups: Mapping[str, Float[Tensor, "group d"]]
    group_sizes: Float[Tensor, " group"]
    inputs: Mapping[str, Float[Tensor, "input d"]] = field(default_factory=dict)
    projections: Mapping[str, Float[Tensor, "input k"]] = field(default_factory=dict)
    lengths: Mapping[str, Float[Tensor, " input"]] = field(default_factory=dict)
    non_finite: Mapping[str, int] = field(default_factory=dict)
    position: str = "last"
    checkpoint: str = ""
    fingerprint: str = ""
    tokenizer: str = ""

    @property
    def n_inputs(self) -> int:
        """Number of inputs recorded."""
        return int(self.group_sizes.sum())

    def mean(self, hook: str) -> Float[Tensor, " d"]:
        """Mean over inputs at a hook point."""
        groups = self.groups[hook]
        if len(groups) != len(self.group_sizes):
            return groups[0]
        return self.group_sizes @ groups / self.group_sizes.sum()

    def save(self, path: Path) -> Path:
        """Save as safetensors with the labels in its metadata."""
        tensors = {f"groups/{name}": value.contiguous() for name, value in self.groups.items()}
        tensors |= {f"inputs/{name}": value.contiguous() for name, value in self.inputs.items()}
        tensors |= {f"projections/{name}": value.contiguous() for name, value in self.projections.items()}
        tensors |= {f"lengths/{name}": value.contiguous() for name, value in self.lengths.items()}
        tensors["group_sizes"] = self.group_sizes
        with replacing(path) as partial:
            save_file(tensors, partial, metadata={"recording": json.dumps(self._labels())})
        return path

    @property
    def table(self) -> pd.DataFrame:
        """A row per hook point: its `width`, the `norm` of the mean over inputs, and `non_finite` values seen."""
        means = {hook: self.mean(hook) for hook in self.groups}
        return pd.DataFrame(
            {
                "hook": list(means),
                "width": [len(mean) for mean in means.values()],
                "norm": [float(mean.norm()) for mean in means.values()],
                "non_finite": [self.non_finite.get(hook, 0) for hook in means],
            }
        )

    def _repr_html_(self) -> str:
        facts = {"inputs": self.n_inputs, "position": self.position}
        return shown(f"recording of {self.checkpoint}", facts, self.table)

    def _labels(self) -> dict[str, Any]:
        return {
            "non_finite": dict(self.non_finite),
            "position": self.position,
            "checkpoint": self.checkpoint,
            "fingerprint": self.fingerprint,
            "tokenizer": self.tokenizer,
        }

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Load a saved recording.

        Raises:
            OSError, SafetensorError, KeyError, TypeError, ValueError: if it is none.
        """
        with safe_open(path, framework="pt") as file:
            labels = json.loads(file.metadata()["recording"])
            # copied: in a mapped file a tensor may lie askew, where the processor's products round otherwise
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dictionary
        parts: dict[str, dict[str, Tensor]] = {kind: {} for kind in ("groups", "inputs", "projections", "lengths")}
        for name, value in tensors.items():
            if name != "group_sizes":
                kind, _, hook = name.partition("/")
                parts[kind][hook] = value
        for values in parts.values():
            check_numbers(values)
        for kind in ("groups", "inputs", "projections"):
            check_dimensions(parts[kind], 2)
        sizes = tensors["group_sizes"]
        check_numbers({"group_sizes": sizes})
        check_dimensions({"group_sizes": sizes}, 1)
        if wrong := [name for name, value in parts["groups"].items() if len(value) not in (1, len(sizes))]:
            raise ValueError(f"{wrong[0]} has {len(parts['groups'][wrong[0]])} groups, not {len(sizes)}")
        rest: dict[str, Any] = {**parts, **typed(cls, labels)}
        return cls(rest.pop("groups"), sizes, **rest)


def record(
    checkpoint: Checkpoint,
    prompts: Sequence[str],
    hooks: Sequence[str],
    *,
    position: Position = "last",
    **settings: Any,
) -> Recording:
    """Record mean activations of texts at hook points; `settings` are the keyword arguments of `record_positions`."""
    return record_positions(checkpoint, prompts, hooks, [position], **settings)[position]


def record_all(
    checkpoint: Checkpoint, prompts: Sequence[str], hooks: Sequence[str], **settings: Any
) -> dict[str, Float[Tensor, "input d"]]:
    """The per-input values of a recording, for small sets of inputs or small hooks (the probe's features, Fig 8)."""
    return dict(record(checkpoint, prompts, hooks, keep=hooks, groups=1, **settings).inputs)


def record_positions(
    checkpoint: Checkpoint,
    prompts: Sequence[str],
    hooks: Sequence[str],
    positions: Sequence[Position],
    *,
    responses: Sequence[str] | None = None,
    continuations: Sequence[Encoded] | None = None,
    keep: Sequence[str] | Mapping[Position, Sequence[str]] = (),
    project: Mapping[str, Float[Tensor, "d k"]] | None = None,
    together: Collection[str] = (),
    lengths: Collection[str] = (),
    groups: int = 128,
    max_tokens: int | None = None,
    max_batch: int = 256,
    padding_side: Literal["left", "right"] = "right",
    truncate: bool = False,
    called: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> dict[Position, Recording]:
    """Record mean activations of texts at hook points and positions, all in one pass.

    Args:
        checkpoint: the model; left exactly as it was.
        prompts: texts.
        hooks: TransformerLens names, see `HookNames.site`.
        positions: of `last` (the last prompt token), `mean` (all prompt tokens), `response` (all tokens of the
            response), `generated:N` (the first N tokens of the continuation), `all`; a mean over tokens of each input.
        responses: texts teacher-forced after the prompts, the same for every checkpoint that is compared.
        continuations: the prompts with tokens after them, from `generation.continue_greedily`: the base's for every
            checkpoint (the same text, so that a change is the model's), or each one's own. Instead of `responses`.
        keep: those of the hook points whose per-input values are wanted too, at every position or by position (memory
            grows with the inputs).
        project: matrices P by hook point: every input's h(x) P is kept, k numbers an input.
        together: those of the hook points of which the mean over all inputs is enough, without groups.
        lengths: those of the hook points at which lengths are wanted too: a number an input.
        groups: at most this many groups of inputs.
        max_tokens: padded tokens per batch; similar lengths share a batch. By default what keeps the device busy: 2,048
            on a CPU, whose caches more would overflow, and 8,192 elsewhere.
        max_batch: sequences per batch.
        padding_side: where padding goes; it changes nothing but rounding.
        truncate: cut prompts that exceed the context from the left instead of raising.
        called: what each input is called in errors; by default "prompt" and its number.
        progress: called with (texts done, texts in all) of this process's share.

    Returns:
        A recording for each position.

    Raises:
        InputError: for unknown hook points or positions, empty or too long prompts, or a hook point the architecture
            lacks.
    """
    if not prompts:
        raise InputError("there are no prompts to record")
    if groups < 1:
        raise InputError(f"there must be at least one group of inputs, got {groups}")
    hooks = list(dict.fromkeys(hooks))
    kept = {p: keep.get(p, ()) if isinstance(keep, Mapping) else keep for p in positions}
    if unknown := {hook for wanted in (*kept.values(), project or {}, together, lengths) for hook in wanted} - set(
        hooks
    ):
        raise InputError(
            f"keep, project, together or lengths names {sorted(unknown)}, which are not among the recorded hook points"
        )
    sites = [checkpoint.names.site(hook) for hook in hooks]
    if any(hook.endswith("hook_resid_mid") for hook in hooks):
        check_middle_stream(checkpoint)
    texts: dict[str, Any] = {"responses": responses, "continuations": continuations}
    read = readings(checkpoint, prompts, positions, **texts, truncate=truncate, called=called)
    tallies = {p: _Tally(len(prompts), groups, kept[p], dict(project or {}), together, lengths) for p in positions}
    windows: dict[Position, Window] = {}

    def see(hook: str, values: Tensor) -> None:
        for position, window in windows.items():
            tallies[position].add(hook, window.mean(values))
            if hook in lengths:
                tallies[position].measure(hook, window.mean_length(values))

    if max_tokens is None:
        max_tokens = 2048 if checkpoint.device.type == "cpu" else 8192
    sizes = [len(r.encoded.ids) for r in read]
    batches = processes.share(list(length_batches(sizes, max_tokens, max_batch, apart=checkpoint.names.short_context)))
    pad_id, done, total = checkpoint.padding_id, 0, sum(len(order) for order in batches)
    with evaluating(checkpoint.model), watching(checkpoint.model, sites, see):
        for order in batches:
            chosen = [read[i] for i in order]
            batch = pad([r.encoded for r in chosen], pad_id=pad_id, side=padding_side, device=checkpoint.device)
            windows.clear()
            windows.update({p: w for p in positions if (w := Window.of(chosen, p, batch)) is not None})
            for position, window in windows.items():
                tallies[position].expect(window.inputs)
            with reading(batch):
                run_until_seen(checkpoint.model, **batch.inputs())
            done += len(order)
            if progress is not None:
                progress(done, total)
    return {position: tally.recording(hooks, position, checkpoint) for position, tally in tallies.items()}


class _Tally:
    """What a recording of one position is made of, summed up on the devices where the values arise."""

    def __init__(
        self,
        n_inputs: int,
        groups: int,
        keep: Sequence[str],
        project: dict[str, Tensor],
        together: Collection[str],
        lengths: Collection[str],
    ) -> None:
        self.n_inputs, self.n_groups = n_inputs, min(n_inputs, groups)
        self.keep, self.project, self.together = frozenset(keep), project, frozenset(together)
        self.sums: dict[str, Tensor] = {}
        self.non_finite: dict[str, Tensor] = {}
        self.kept: dict[str, Tensor] = {}
        self.projected: dict[str, Tensor] = {}
        self.measured, self.lengths = frozenset(lengths), dict[str, Tensor]()

    def expect(self, inputs: Int[Tensor, " row"]) -> None:
        """Say which inputs the values to come are of."""
        self.inputs = OnDevices(inputs)
        self.turns = [
            (OnDevices(inputs[turn] % self.n_groups), OnDevices(turn)) for turn in _turns(inputs % self.n_groups)
        ]

    def add(self, hook: str, values: Float[Tensor, "row d"]) -> None:
        """Add the values of the expected inputs at a hook point, without waiting for the device."""
        if hook not in self.sums:
            self._make_room(hook, values.shape[1], values.dtype, values.device)
        total = self.sums[hook]
        self.non_finite[hook] += (~torch.isfinite(values)).sum()
        wide = values.to(total.dtype)
        if hook in self.together:
            total += wide.sum(0)
        else:
            for groups, turn in self.turns:
                total.index_add_(0, groups.on(total.device), wide[turn.on(total.device)])
        if hook in self.project:
            self.projected[hook][self.inputs.on(total.device)] = wide @ self.project[hook]
        if hook in self.keep:  # these may be many: they leave the device
            self.kept[hook][self.inputs.host] = values.cpu()

    def measure(self, hook: str, lengths: Float[Tensor, " row"]) -> None:
        """Keep the lengths of the expected inputs at a hook point whose values were added."""
        kept = self.lengths[hook]
        kept[self.inputs.on(kept.device)] = lengths.to(kept)

    def _make_room(self, hook: str, d: int, dtype: torch.dtype, device: torch.device) -> None:
        # float64 sums where the device has it: thousands of inputs, and differences of means are taken later
        wide = torch.float32 if device.type == "mps" else torch.float64
        self.sums[hook] = torch.zeros(1 if hook in self.together else self.n_groups, d, dtype=wide, device=device)
        self.non_finite[hook] = torch.zeros((), dtype=torch.long, device=device)
        if hook in self.project:
            self.project[hook] = self.project[hook].to(self.sums[hook])
            self.projected[hook] = torch.zeros(self.n_inputs, self.project[hook].shape[1], dtype=wide, device=device)
        if hook in self.measured:
            self.lengths[hook] = torch.zeros(self.n_inputs, dtype=wide, device=device)
        if hook in self.keep:
            self.kept[hook] = torch.zeros(self.n_inputs, d, dtype=dtype)

    def recording(self, hooks: Sequence[str], position: Position, checkpoint: Checkpoint) -> Recording:
        """Join the processes' sums, once, and make the recording of them."""
        kept = torch.promote_types(checkpoint.model.dtype, torch.float32)
        for share in processes.gather([{hook: total.shape[1] for hook, total in self.sums.items()}]):
            for hook, d in share.items():
                if hook not in self.sums:  # a process without a single batch has seen nothing
                    self._make_room(hook, d, kept, checkpoint.device)
        for parts in (self.sums, self.non_finite, self.kept, self.projected, self.lengths):
            processes.add_up(parts[hook] for hook in hooks if hook in parts)
        sizes = torch.bincount(torch.arange(self.n_inputs) % self.n_groups).to(torch.float64)
        return Recording(
            groups={
                hook: self.sums[hook].cpu().double() / (self.n_inputs if hook in self.together else sizes[:, None])
                for hook in hooks
            },
            group_sizes=sizes,
            inputs=self.kept,
            projections={hook: rows.cpu() for hook, rows in self.projected.items()},
            lengths={hook: found.cpu() for hook, found in self.lengths.items()},
            non_finite={hook: int(self.non_finite[hook]) for hook in hooks},
            position=position,
            checkpoint=checkpoint.name,
            fingerprint=checkpoint.fingerprint,
            tokenizer=checkpoint.tokenizer_fingerprint,
        )


def _turns(groups: Int[Tensor, " row"]) -> list[Int[Tensor, " row"]]:
    """The rows in turns with no group twice in one: on every device the sums then add up in one order."""
    turns: list[list[int]] = []
    seen: dict[int, int] = {}
    for row, group in enumerate(groups.tolist()):
        turn = seen[group] = seen.get(group, -1) + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append(row)
    return [torch.tensor(turn) for turn in turns]
