"""Weights on disk: single tensors read lazily under the model's own names, and the fingerprint of weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PretrainedConfig

from mechinterp.data.counting import many
from mechinterp.errors import InputError
from mechinterp.models.bases import stands_on
from mechinterp.models.deltas import WeightDelta, added
from mechinterp.models.descriptions import read_config
from mechinterp.models.files.stored_names import Recipe, StoredNames, unused
from mechinterp.models.files.tensor_files import InMemory, TensorFiles
from mechinterp.models.names import HookNames
from mechinterp.models.sources import Source, first_few

_THREADS = 2  # hashing and reading from the disk at once; more gain little


def is_code(dtype: torch.dtype) -> bool:
    """Whether numbers of a type are a quantiser's codes where weights should be: whole ones, and floats of a byte."""
    return not dtype.is_floating_point or dtype.itemsize < 2


def fingerprint_tensors(names: Iterable[str], read: Callable[[str], Tensor]) -> str:
    """Hash of names, types, shapes and bytes: equal for equal weights, however they are stored or sharded.

    Args:
        names: of the tensors, in any order.
        read: gives a tensor by name; called from two threads, so that two tensors are held at a time.

    Returns:
        32 hexadecimal digits.
    """

    def digest(name: str) -> bytes:
        flat = read(name).detach().cpu().contiguous()
        state = hashlib.blake2b(f"{name}|{flat.dtype}|{tuple(flat.shape)}|".encode(), digest_size=16)
        state.update(flat.reshape(-1).view(torch.uint8).numpy().data)  # hashlib lets other threads run meanwhile
        return name.encode() + state.digest()

    with ThreadPoolExecutor(_THREADS) as pool:
        digests = sorted(pool.map(digest, names))
    return hashlib.blake2b(b"".join(digests), digest_size=16).hexdigest()


def fingerprint_model(model: nn.Module) -> str:
    """Fingerprint of a model in memory (tied tensors counted once); equal to that of the files it was saved to."""
    parameters = dict(model.named_parameters())
    return fingerprint_tensors(parameters, parameters.__getitem__)


@dataclass(frozen=True)
class LazyWeights:
    """The weights of a checkpoint on disk, read one tensor at a time under the model's own names; no model is built.

    Tensors come in their stored type, mapped from the file: they may be read but must not be written to. What a GGUF
    file holds comes in float32. A checkpoint that `Checkpoint.load` opens in another type has another fingerprint.

    Attributes:
        source: what it was opened from, as given.
        names: translator of hook point names for this architecture.
        files: the open files.
        delta: changes by parameter name that are added on reading; empty unless an edit was opened.
    """

    source: str
    names: HookNames
    files: TensorFiles = field(repr=False)
    delta: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.source}>"

    @classmethod
    def open(cls, source: str | Path, base: str | Path | None = None, trust_remote_code: bool = False) -> LazyWeights:
        """Open a model folder or a GGUF file, or a state-dict file or an edit's folder on a base; no data is read.

        The names and shapes of all tensors are checked. That an edit belongs to these very weights is not, as it would
        mean to read them all: compare `WeightDelta.fingerprint` with the base's `fingerprint` for that.

        Args:
            source: a folder with single or sharded safetensors or `.bin` files, a GGUF file, a state-dict file, or an
                edit's folder.
            base: the model that a state-dict file takes its config from, or that an edit changes.
            trust_remote_code: run code that comes with the checkpoint; off unless asked for.

        Raises:
            InputError: if a file is missing, damaged or does not fit the architecture; for an adapter, whose weights
                are in no file before it is merged.
        """
        found = Source.find(source)
        below = found.base(base) if found.kind in ("edit", "tensors") else None
        if found.kind == "adapter":
            raise InputError(
                f"{found.given}: an adapter's weights are in no file before it is merged; merge it first: "
                f"Checkpoint.load({found.given!r}{_base_of_adapter(found, base)}).save(FOLDER)"
            )
        if found.kind == "hub":
            raise InputError(
                f"{found.given}: no such folder (if it is a hub id, download it: single tensors are read from a local "
                "folder)"
            )
        if found.kind == "edit" and below is not None:
            weights = cls.open(below.place, trust_remote_code=trust_remote_code)
            delta = WeightDelta.load(found.path)
            delta.check_shapes({name: weights.shape(name) for name in weights.stored.aliases}, weights.source)
            return replace(weights, source=f"{found.given} on {weights.source}", delta=delta.tensors)
        return cls.of(found, read_config(below or found, trust_remote_code=trust_remote_code), trust_remote_code)

    @classmethod
    def of(cls, source: Source, config: PretrainedConfig, trust_remote_code: bool = False) -> LazyWeights:
        """Open a model folder, a GGUF file or a state-dict file whose config has been read.

        Raises:
            InputError: as `open`.
        """
        names = HookNames(config, source.given, trust_remote_code)
        weights = cls(source.given, names, TensorFiles.open(source, names))
        weights.check_fit()
        return weights

    @classmethod
    def of_memory(cls, tensors: Mapping[str, Tensor], names: HookNames) -> LazyWeights:
        """The weights of a model that is in memory, by its own names; they are read on the host, one at a time."""
        held = InMemory(tensors)
        files = TensorFiles(names.source, {name: (held, name) for name in tensors})
        return cls(names.source, names, files)

    @classmethod
    def against(
        cls, source: str, other: str, base: str | Path | None = None, trust_remote_code: bool = False
    ) -> LazyWeights:
        """Open a checkpoint that is set against another one: it stands on what `bases.stands_on` says.

        Raises:
            InputError: as `open` and `stands_on` do.
        """
        if Path(source).is_dir() and Source.find(source).kind == "adapter":
            return cls.open(source, base)  # which refuses it, whatever it stands on
        return cls.open(*stands_on(source, other, None if base is None else str(base)), trust_remote_code)

    @cached_property
    def stored(self) -> StoredNames:
        """Which stored tensors make up each parameter."""
        return StoredNames.translate(self.names.skeleton, self.files.names, self.files.rules)

    def check_fit(self) -> None:
        """Raise one `InputError`: what is missing, not known, or has another shape or type."""
        faults = []
        if missing := self.stored.missing:
            faults.append(f"{many(len(missing), 'weight is', 'weights are')} missing ({first_few(missing)})")
        if unlisted := self.files.unlisted:
            faults.append(f"{len(unlisted)} of the shards' tensors are not in the index ({first_few(unlisted)})")
        remedy = None
        if unknown := self.stored.unexpected:
            fault, remedy = unused(unknown, type(self.names.skeleton).__name__)
            faults.append(fault)
        shapes = {name: tuple(tensor.shape) for name, tensor in self.names.skeleton.state_dict().items()}
        wrong = [
            f"{name} {found} instead of {shapes[name]}"
            for name, recipe in self.stored.recipes.items()
            if recipe.converter is None and (found := self.files.shape(recipe.stored[0][0])) != shapes[name]
        ]
        if wrong:
            faults.append(f"{len(wrong)} have other shapes than the config says ({first_few(wrong)})")
        if packed := self._codes():
            faults.append(f"{len(packed)} hold no floating-point numbers ({first_few(packed)})")
        if faults:
            faults += [] if remedy is None else [remedy]
            raise InputError(f"{self.source}: the weights do not fit the architecture: {'; '.join(faults)}")

    def _codes(self) -> list[str]:
        """Stored tensors of whole numbers or of eight bits where the model has weights, as a quantiser leaves them."""
        floating = {
            name
            for name, parameter in self.names.skeleton.named_parameters(remove_duplicate=False)
            if parameter.is_floating_point()
        }
        stored = {name for own, r in self.stored.recipes.items() if own in floating for name, _ in r.stored}
        types = {name: self.files.dtype(name) for name in stored}
        return [f"{name} {str(t).removeprefix('torch.')}" for name, t in types.items() if is_code(t)]

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The model's own parameter names, sorted, tied ones once."""
        names = set(self.stored.aliases)
        # A file may hold both of two tied parameters; transformers does not tie them where they differ.
        for own, aliases in self.stored.aliases.items():
            held = [name for name in aliases if name in self.stored.recipes]
            names |= {name for name in held if name != own and not self._equal(held[0], name)}
        return tuple(sorted(names))

    def tensor(self, name: str) -> Tensor:
        """One parameter by the model's own name, in its stored type.

        Raises:
            InputError: if the model has no such parameter.
        """
        return self._changed(name, self._stored_tensor(name))

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` of a parameter; the others are not read."""
        recipe = self._recipe(name)
        if recipe.converter is not None:
            return self.tensor(name)[start:stop]
        return self._changed(name, self.files.rows(recipe.stored[0][0], start, stop), slice(start, stop))

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a parameter, without reading the data."""
        self._recipe(name)
        return tuple(self.names.skeleton.get_parameter_or_buffer(name).shape)

    def dtype(self, name: str) -> torch.dtype:
        """Stored type of a parameter, without reading the data."""
        return self.files.dtype(self._recipe(name).stored[0][0])

    def stored_type(self, name: str) -> str:
        """What the file calls the type of a parameter: that of `dtype`, or a quantiser's, as `Q4_1`."""
        return self.files.stored_type(self._recipe(name).stored[0][0])

    @property
    def main_dtype(self) -> torch.dtype:
        """Stored type of the first parameter that is a floating-point number, as transformers takes it."""
        return next(dtype for name in self.stored.aliases if (dtype := self.dtype(name)).is_floating_point)

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every parameter, one at a time, sorted by name."""
        for name in self.parameters:
            yield name, self.tensor(name)

    def value_matrix(self, block: int) -> Float[Tensor, "d_mlp d_model"]:
        """W_V of a block: row j is value vector v_j."""
        name, transposed = self.names.value_parameter(block)
        weight = self.tensor(name)
        return weight.T if transposed else weight

    def value_bias(self, block: int) -> Float[Tensor, " d_model"]:
        """Bias of the MLP's second matrix, float32 zeros where the architecture has none."""
        name = self.names.value_bias_parameter(block)
        return torch.zeros(self.names.d_model) if name is None else self.tensor(name)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the weights: that of the model in memory, if it is loaded in the stored type."""
        return fingerprint_tensors(self.parameters, self.tensor)

    def _recipe(self, name: str) -> Recipe:
        recipes = self.stored.recipes
        held = next((alias for alias in (name, *self.stored.aliases.get(name, ())) if alias in recipes), None)
        if held is None:
            raise InputError(f"{self.source}: no tensor named {name}")
        return recipes[held]

    def _stored_tensor(self, name: str) -> Tensor:
        recipe = self._recipe(name)
        if recipe.converter is None:
            return self.files.tensor(recipe.stored[0][0])
        return recipe.make(self.files.tensor, self.names.skeleton)[name]

    def _changed(self, name: str, stored: Tensor, rows: slice = slice(None)) -> Tensor:
        if name not in self.delta:
            return stored
        return added(stored, self.delta[name][rows]).to(stored.dtype)

    def _equal(self, a: str, b: str) -> bool:
        return torch.equal(self._stored_tensor(a), self._stored_tensor(b))


def _base_of_adapter(adapter: Source, base: str | Path | None) -> str:
    """The argument that opens an adapter on its base: none where the base that it names itself is there."""
    if base is not None:
        return f", base={str(base)!r}"
    try:
        adapter.base(None)
    except InputError:
        return ", base=MODEL"
    return ""
