"""What was recorded: means of activations over groups of inputs, and where they were measured."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mechinterp.data.counting import many
from mechinterp.data.showing import one_line, shown
from mechinterp.data.storage.files import replacing
from mechinterp.data.storage.labels import check_dimensions, check_numbers, typed
from mechinterp.errors import InputError
from mechinterp.measures.massive import dimension_share


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
        entry_shares: likewise, the largest share of one dimension at one position in the sum of their squares, [input].
        non_finite: per hook point, how many measured values were NaN or infinite (they are kept, so the means show it).
        position: the token positions averaged over in each input, see `tokens.Encoded.positions`.
        checkpoint: name of the model recorded.
        fingerprint: of its weights.
        tokenizer: fingerprint of its tokenizer.
        without_sinks: whether tokens with massive activations were left out.
    """

    groups: Mapping[str, Float[Tensor, "group d"]]
    group_sizes: Float[Tensor, " group"]
    inputs: Mapping[str, Float[Tensor, "input d"]] = field(default_factory=dict)
    projections: Mapping[str, Float[Tensor, "input k"]] = field(default_factory=dict)
    lengths: Mapping[str, Float[Tensor, " input"]] = field(default_factory=dict)
    entry_shares: Mapping[str, Float[Tensor, " input"]] = field(default_factory=dict)
    non_finite: Mapping[str, int] = field(default_factory=dict)
    position: str = "last"
    checkpoint: str = ""
    fingerprint: str = ""
    tokenizer: str = ""
    without_sinks: bool = False

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

    def check_finite(self, source: str) -> None:
        """Raise `InputError`, which names the model as `source`, if a measured value was NaN or infinite."""
        if bad := {hook: count for hook, count in self.non_finite.items() if count}:
            raise InputError(f"{source}: non-finite activations {bad}; use a wider type (`dtype=float32`)")

    def save(self, path: str | Path) -> Path:
        """Save as safetensors with the labels in its metadata."""
        tensors = {f"groups/{name}": value.contiguous() for name, value in self.groups.items()}
        tensors |= {f"inputs/{name}": value.contiguous() for name, value in self.inputs.items()}
        tensors |= {f"projections/{name}": value.contiguous() for name, value in self.projections.items()}
        for kind in ("lengths", "entry_shares"):
            tensors |= {f"{kind}/{name}": value.contiguous() for name, value in getattr(self, kind).items()}
        tensors["group_sizes"] = self.group_sizes
        with replacing(Path(path)) as partial:
            save_file(tensors, partial, metadata={"recording": json.dumps(self._labels())})
        return Path(path)

    @property
    def table(self) -> pd.DataFrame:
        """A row per hook point.

        Its `width`, the `norm` of the mean over inputs, `dimension_share`, the share that one dimension makes of the
        square of that, and `non_finite` values seen.
        """
        means = {hook: self.mean(hook) for hook in self.groups}
        return pd.DataFrame(
            {
                "hook": list(means),
                "width": [len(mean) for mean in means.values()],
                "norm": [float(mean.norm()) for mean in means.values()],
                "dimension_share": [float(dimension_share(mean)) for mean in means.values()],
                "non_finite": [self.non_finite.get(hook, 0) for hook in means],
            }
        )

    def __repr__(self) -> str:
        return one_line(
            self,
            f"of {self.checkpoint}" if self.checkpoint else "",
            many(self.n_inputs, "input"),
            f"position {self.position}",
            many(len(self.groups), "hook point"),
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
            "without_sinks": self.without_sinks,
        }

    @classmethod
    def load(cls, path: str | Path) -> Recording:
        """Load a saved recording.

        Raises:
            OSError, SafetensorError, KeyError, TypeError, ValueError: if it is none.
        """
        with safe_open(path, framework="pt") as file:
            labels = json.loads(file.metadata()["recording"])
            # copied: in a mapped file a tensor may lie askew, where the processor's products round otherwise
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - not a dictionary
        kinds = ("groups", "inputs", "projections", "lengths", "entry_shares")
        parts: dict[str, dict[str, Tensor]] = {kind: {} for kind in kinds}
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
