"""A weight delta: what an edit changed, kept apart from the model it belongs to."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mechinterp.data.counting import many
from mechinterp.data.showing import one_line, shown
from mechinterp.data.storage.files import replacing, write_json
from mechinterp.data.storage.labels import check_numbers, typed
from mechinterp.data.storage.places import check_replaceable
from mechinterp.errors import InputError
from mechinterp.measures.low_rank import low_rank
from mechinterp.models.same_tokenizer import check_tokenizer

if TYPE_CHECKING:
    from mechinterp.models.checkpoints import Checkpoint

logger = logging.getLogger(__name__)

EDIT_FILES = ("delta.safetensors", "edit.json")
"""What the folder of an edit consists of."""


@dataclass(frozen=True)
class EditStep:
    """What was seen at one step.

    Attributes:
        loss, loss_edit, loss_constraint: before the step: the weighted sum, L_e and L_c, in nats per token.
        accuracy: before the step: share of the safe response's tokens that are the most probable one.
        change_norm: after the step: Frobenius norm of the change so far over that of the weights.
        stable_rank: after the step: |D|_F^2 / |D|_2^2 of the change so far (of the matrix where it is largest).
    """

    loss: float
    loss_edit: float
    loss_constraint: float
    accuracy: float = math.nan
    change_norm: float = math.nan
    stable_rank: float = math.nan


@dataclass(frozen=True)
class WeightDelta:
    """Changes of parameters, by the model's own names.

    Attributes:
        tensors: parameter name -> change, in the parameter's shape, float32 or wider. Added to a narrower parameter it
            is rounded with it; small learning rates want a float32 model.
        block: the edited block, from 0; of several the lowest.
        instance: id of the instance it was made for; of several the first.
        also: further edited blocks.
        instances: ids of all instances where it was made for several.
        settings: of the method that made it.
        log: losses per step.
        fingerprint: of the weights it belongs to; it is refused on any others.
        tokenizer: fingerprint of the tokenizer it was made with, likewise; empty where it is not known.
        factors: of those changes that are known as two thin matrices, left [m, rank] and right [rank, n]; their
            products are in `tensors`, and the factors alone are saved.
        mode: how it was made of its instances: `each`, `sequential` or `batch`; empty where that has no meaning.
        key: digest of what it was made of, see `methods.editing.keys`; empty if unknown.
    """

    tensors: Mapping[str, Tensor]
    block: int
    instance: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    log: tuple[EditStep, ...] = ()
    fingerprint: str = ""
    also: tuple[int, ...] = ()
    instances: tuple[int, ...] = ()
    mode: str = ""
    key: str = ""
    tokenizer: str = ""
    factors: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict, repr=False)

    @contextmanager
    def applied(self, checkpoint: Checkpoint, *, name: str | None = None) -> Iterator[Checkpoint]:
        """The edited checkpoint, for the time of the context; then the weights are what they were, bit for bit.

        Raises:
            InputError: if the checkpoint is not the one the delta belongs to.
        """
        self.check(checkpoint)
        saved: dict[str, Tensor] = {}
        try:
            with torch.no_grad():
                for parameter_name, change in self.tensors.items():
                    parameter = checkpoint.parameter(parameter_name)
                    saved[parameter_name] = parameter.detach().clone()
                    parameter.copy_(added(parameter, change))
                if saved and all(torch.equal(checkpoint.parameter(n), value) for n, value in saved.items()):
                    warn_of_no_change(checkpoint.source)
            yield replace(checkpoint, name=name or f"{checkpoint.name}+edit{self.instance}", source="memory")
        finally:
            with torch.no_grad():
                for parameter_name, value in saved.items():
                    checkpoint.parameter(parameter_name).copy_(value)

    def merged(self, checkpoint: Checkpoint, *, name: str) -> Checkpoint:
        """A copy of the checkpoint with the change in its weights."""
        source = f"{checkpoint.source} + edit of instance {self.instance}"
        return self.apply_to(checkpoint.copied(name=name, source=source))

    @torch.no_grad()
    def apply_to(self, checkpoint: Checkpoint) -> Checkpoint:
        """Change the checkpoint's own weights for good, and give them under a new fingerprint.

        Raises:
            InputError: if the checkpoint is not the one the delta belongs to; its weights are then as they were.
        """
        self.check(checkpoint)
        changed = False
        for name, change in self.tensors.items():
            parameter = checkpoint.parameter(name)
            new = added(parameter, change).to(parameter.dtype)
            changed = changed or not torch.equal(new, parameter)
            parameter.copy_(new)
        if not changed:
            warn_of_no_change(checkpoint.source)
        return replace(checkpoint)  # the old one may remember the fingerprint it had

    def check(self, checkpoint: Checkpoint) -> None:
        """Raise `InputError` unless the delta belongs to this checkpoint's weights."""
        self.check_shapes(checkpoint.shapes, checkpoint.source)
        if self.fingerprint != checkpoint.fingerprint:
            raise InputError(
                f"this edit belongs to weights {self.fingerprint or '(unknown)'}, not to {checkpoint.source} "
                f"({checkpoint.fingerprint}): to other weights, or to these in another dtype"
            )
        own = checkpoint.tokenizer_fingerprint
        check_tokenizer("this edit", self.tokenizer, own, checkpoint.source, of_weights=self.fingerprint)

    def check_shapes(self, shapes: Mapping[str, tuple[int, ...]], source: str) -> None:
        """Raise `InputError` if a change has no parameter of its name and shape; the quick part of `check`."""
        for name, change in self.tensors.items():
            if shapes.get(name) != tuple(change.shape):
                raise InputError(
                    f"this edit does not fit {source}: it changes {name} {tuple(change.shape)}, "
                    f"which is {shapes.get(name, 'absent')} there"
                )

    @property
    def table(self) -> pd.DataFrame:
        """A row per changed parameter: its `shape`, and `change_norm`, the Frobenius norm of the change."""
        rows = [
            {"parameter": name, "shape": "x".join(map(str, change.shape)), "change_norm": float(change.norm())}
            for name, change in self.tensors.items()
        ]
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        return one_line(
            self,
            f"of block {self.block}",
            f"instance {self.instance}",
            many(len(self.tensors), "parameter"),
            f"of weights {self.fingerprint}" if self.fingerprint else "",
        )

    def _repr_html_(self) -> str:
        facts = {"block": self.block, "instance": self.instance, "steps": len(self.log)}
        return shown("edit", {**facts, "of weights": self.fingerprint}, self.table)

    def save(self, folder: str | Path, *, rank: int | None = None) -> Path:
        """Write `delta.safetensors` and `edit.json` into a folder; both or neither.

        Args:
            rank: keep the best approximation of every matrix by this rank, as two factors; the share of the squared
                norm that it keeps is written into `edit.json`. If not given or not smaller, whole, or as the factors
                that it is known by.

        Raises:
            InputError: if the folder holds anything but an edit, see `check_replaceable`.
        """
        check_replaceable(Path(folder), ours=EDIT_FILES)
        tensors: dict[str, Tensor] = {}
        kept: dict[str, float] = {}
        for name, value in self.tensors.items():
            own = self.factors.get(name)
            if (
                own is not None
                and (rank is None or own[0].shape[1] <= rank)
                and sum(map(Tensor.numel, own)) < value.numel()
            ):
                tensors[f"{name}.left"], tensors[f"{name}.right"], kept[name] = *own, 1.0
            elif rank is not None and value.dim() == 2 and rank * sum(value.shape) < value.numel():
                tensors[f"{name}.left"], tensors[f"{name}.right"], kept[name] = low_rank(value, rank)
            else:
                tensors[name] = value
        with replacing(Path(folder), ours=EDIT_FILES) as partial:
            partial.mkdir()
            save_file({k: v.contiguous() for k, v in tensors.items()}, partial / "delta.safetensors")
            write_json(partial / "edit.json", {**self.labels(), "rank": rank, "low_rank": kept})
        return Path(folder)

    def labels(self) -> dict[str, Any]:
        """All but the tensors, JSON-serialisable."""
        return {
            "block": self.block,
            "also": list(self.also),
            "instance": self.instance,
            "instances": list(self.instances),
            "settings": dict(self.settings),
            "fingerprint": self.fingerprint,
            "mode": self.mode,
            "key": self.key,
            "tokenizer": self.tokenizer,
            "steps": [asdict(step) for step in self.log],
        }

    @classmethod
    def load(cls, folder: str | Path) -> WeightDelta:
        """Read an edit's folder.

        Raises:
            InputError: if it is none.
        """
        folder = Path(folder)
        try:
            labels = json.loads((folder / "edit.json").read_text(encoding="utf-8"))
            tensors = load_file(folder / "delta.safetensors")
            labels.pop("rank", None)  # that was asked for
            factors = {}
            for name in labels.pop("low_rank", ()):
                factors[name] = tensors.pop(f"{name}.left"), tensors.pop(f"{name}.right")
                tensors[name] = factors[name][0] @ factors[name][1]
            check_numbers(tensors)
            labels["log"] = labels.pop("steps")
            return cls(tensors=tensors, factors=factors, **typed(cls, labels))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            raise InputError(f"{folder}: not the folder of an edit ({error})") from error


def warn_of_no_change(source: str) -> None:
    """Say that an edit leaves every weight as it was."""
    logger.warning(
        "the weights are equal: an edit changes none of those of %s (made with 0 steps, or too small for their type)",
        source,
    )


def kept_labels(folder: Path) -> dict[str, Any]:
    """What stands in the `edit.json` of a folder; empty where there is none that can be read."""
    try:
        found = json.loads((folder / "edit.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def edit_folders(folder: Path) -> list[Path]:
    """The folders of edits in a folder; not what a kill left unfinished (`.11.999.partial`)."""
    return sorted(path.parent for path in folder.glob("*/edit.json") if not path.parent.name.startswith("."))


def added(parameter: Tensor, change: Tensor) -> Tensor:
    """Parameter + change in the wider type of the two, so that it is rounded once."""
    return parameter.detach().to(torch.promote_types(parameter.dtype, change.dtype)) + change.to(parameter.device)
