"""A toxic direction with where it came from: of a probe, a difference of means, value vectors, or a file.

    probe      a row, or difference of rows, of a toxic probe
    means      mean residual stream over one set of texts minus that over another
    svd        a singular vector of the base's most toxic value vectors
    effective  another direction pulled back through the final norm's gain
    file       whatever a user brings

Those that take a model are made in `audit.directions.making`. That a direction separates texts does not show that the
model uses it.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mechinterp.audit.directions.probe import Selection, ToxicProbe
from mechinterp.data.counting import many
from mechinterp.data.showing import one_line, shown
from mechinterp.data.storage.files import replacing
from mechinterp.data.storage.labels import typed
from mechinterp.data.storage.places import check_name
from mechinterp.errors import InputError
from mechinterp.models.same_tokenizer import check_tokenizer

Kind = Literal["probe", "means", "svd", "effective", "file"]
KINDS: tuple[Kind, ...] = ("probe", "means", "svd", "effective", "file")
SUFFIXES = (".safetensors", ".st", ".npy", ".pt", ".pth", ".bin")

_KEY = "direction"
_NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class ToxicDirection:
    """A direction in the residual stream, and what it is of.

    Attributes:
        vector: float32 on the CPU, of any length but 0, [d_model].
        kind: how it was made.
        name: in tables.
        fingerprint: of the model that it belongs to; empty where that is not known.
        settings: what else it was made with, JSON-serialisable.
        tokenizer: fingerprint of the tokenizer of that model; empty where it is not known.

    Raises:
        InputError: if the vector is no vector, zero or not finite, the kind unknown, or the name not a plain one.
    """

    vector: Float[Tensor, " d_model"]
    kind: Kind
    name: str
    fingerprint: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"the kind of a direction must be one of {KINDS}, got {self.kind!r}")
        check_name(self.name, "direction")
        if self.vector.dim() != 1 or self.vector.dtype not in _NUMBERS:
            raise InputError(
                f"{self.name}: a direction is one vector of floating-point numbers, got {tuple(self.vector.shape)} "
                f"{str(self.vector.dtype).removeprefix('torch.')}"
            )
        vector = self.vector.detach().cpu().float()
        if bad := int((~torch.isfinite(vector)).sum()):
            raise InputError(
                f"{self.name}: {bad} of {len(vector)} numbers of the direction are NaN or infinite, or too large for "
                "float32"
            )
        if not vector.any():
            raise InputError(f"{self.name}: the direction is zero (in float32), so nothing can be measured along it")
        object.__setattr__(self, "vector", vector)

    @classmethod
    def from_probe(
        cls, probe: ToxicProbe, selection: Selection = "toxic_minus_clean", *, name: str | None = None
    ) -> ToxicDirection:
        """A probe's direction, by one of its selections; called `probe` or by the selection if no name is given."""
        named = name or ("probe" if selection == "toxic_minus_clean" else selection)
        settings = {"selection": selection, "seed": probe.seed, "final_norm": probe.final_norm}
        return cls(probe.direction_by(selection), "probe", named, probe.fingerprint, settings, probe.tokenizer)

    def check(self, fingerprint: str, source: str, tokenizer: str | None = None) -> None:
        """Raise `InputError` if the direction was made of other weights, or with another tokenizer, than these."""
        if self.fingerprint and self.fingerprint != fingerprint:
            raise InputError(
                f"the direction {self.name!r} belongs to other weights ({self.fingerprint}) than {source} "
                f"({fingerprint}); make one for this base with `mechinterp direction`"
            )
        what = f"the direction {self.name!r}"
        check_tokenizer(what, self.tokenizer, tokenizer, source, of_weights=self.fingerprint)

    def check_width(self, width: int, source: str) -> None:
        """Raise `InputError` if it does not fit a residual stream of this width."""
        if len(self.vector) != width:
            raise InputError(
                f"the direction {self.name!r} has {len(self.vector)} dimensions, {source} has {width}; "
                "make one for this model with `mechinterp direction`"
            )

    def named(self, name: str) -> ToxicDirection:
        """The same under another name."""
        return replace(self, name=name)

    def __repr__(self) -> str:
        return one_line(
            self,
            self.name,
            f"by {self.kind}",
            f"d_model {len(self.vector)}",
            f"of weights {self.fingerprint}" if self.fingerprint else "",
        )

    def _repr_html_(self) -> str:
        facts = {"kind": self.kind, "width": len(self.vector), "norm": f"{float(self.vector.norm()):.4g}"}
        facts |= {"of weights": self.fingerprint}
        settings = pd.DataFrame([{name: str(value) for name, value in self.settings.items()}])
        return shown(f"direction {self.name}", facts, *([settings] if self.settings else []))

    def save(self, path: str | Path) -> Path:
        """Save as safetensors, where it came from in its metadata."""
        labels = {
            "kind": self.kind,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "settings": dict(self.settings),
            "tokenizer": self.tokenizer,
        }
        with replacing(Path(path)) as partial:
            save_file({_KEY: self.vector.contiguous()}, partial, metadata={_KEY: json.dumps(labels)})
        return Path(path)

    @classmethod
    def load(cls, path: str | Path, *, name: str | None = None) -> ToxicDirection:
        """A direction from a file: a saved one, a probe, or a bare vector.

        Args:
            path: what `save` or `ToxicProbe.save` wrote; or `.safetensors`, `.npy`, `.pt` (read with
                `weights_only=True`) with one tensor of shape [d_model], or with one row or column.
            name: in tables; that in the file if not given, else the file's name.

        Raises:
            InputError: if there is no such file, it is damaged, of another kind, or holds no one vector that is finite
                and not zero.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(f"{path}: no such file; make a direction with `mechinterp direction`")
        if path.suffix not in SUFFIXES:
            raise InputError(f"{path}: a direction is read from {', '.join(SUFFIXES)}; save it as one of these")
        if path.suffix in (".safetensors", ".st"):
            metadata, tensors = _read_safetensors(path)
            if "probe" in metadata:
                return cls.from_probe(ToxicProbe.load(path), name=name)
            if _KEY in metadata:
                found = _saved(path, metadata[_KEY], tensors)
                return found if name is None else found.named(name)
        else:
            tensors = _read_array(path) if path.suffix == ".npy" else _read_pickled(path)
        if len(tensors) != 1:
            listed = f": {', '.join(sorted(tensors)[:5])}" if tensors else ""
            raise InputError(f"{path}: holds {many(len(tensors), 'tensor')}{listed}; a file of a direction holds one")
        (vector,) = tensors.values()
        if vector.dim() == 2 and 1 in vector.shape:
            vector = vector.flatten()
        try:
            return cls(vector, "file", name or path.stem, settings={"file": path.name})
        except InputError as error:
            raise InputError(f"{path}: {error}") from error


def _saved(path: Path, metadata: str, tensors: Mapping[str, Tensor]) -> ToxicDirection:
    try:
        return ToxicDirection(tensors[_KEY], **typed(ToxicDirection, json.loads(metadata)))
    except (KeyError, TypeError, ValueError) as error:
        reason = (
            error if isinstance(error, InputError) else f"not a direction written by `mechinterp direction` ({error})"
        )
        raise InputError(f"{path}: {reason}") from error


def _read_safetensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a complete safetensors file ({error})") from error


def _read_array(path: Path) -> dict[str, Tensor]:
    try:
        return {path.stem: torch.from_numpy(np.load(path, allow_pickle=False))}
    except (ValueError, TypeError, EOFError, OSError) as error:
        raise InputError(f"{path}: not a file of numbers that numpy saved ({str(error).splitlines()[0]})") from error


def _read_pickled(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InputError(
            f"{path}: a file that is damaged, or that would run code when opened; only tensors are read"
        ) from error
    if isinstance(content, Tensor):
        return {path.stem: content}
    if isinstance(content, Mapping):
        return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    raise InputError(f"{path}: holds no tensor but {type(content).__name__}; save the direction as one tensor")
