"""Tensors in files, read one at a time and mapped into memory: single or sharded, safetensors, pickled, or GGUF.

A file is opened once, and nothing is read but what is asked for. Pickled files are opened with `weights_only=True`,
which builds tensors and plain containers and runs no code. A file that is cut short is refused when it is opened.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers.core_model_loading import WeightTransform
from transformers.modeling_utils import str_to_torch_dtype

from mechinterp.errors import InputError
from mechinterp.models.descriptions import one_line
from mechinterp.models.files.gguf_tensors import GgufTensors
from mechinterp.models.gguf_header import GgufHeader
from mechinterp.models.names import HookNames
from mechinterp.models.sources import Source, read_index

# keys under which trainers put the tensors, beside an optimiser's state
_WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
_PREFIXES = ("module.", "_orig_mod.")  # put before every name by data-parallel and by compiled modules


class TensorFile(Protocol):
    """An open file of named tensors."""

    def names(self) -> Iterable[str]:
        """Names of its tensors."""

    def tensor(self, name: str) -> Tensor:
        """One tensor."""

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Some of its rows."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape, without reading the data."""

    def dtype(self, name: str) -> torch.dtype:
        """Type, without reading the data."""

    def stored_type(self, name: str) -> str:
        """What the file calls the type: that of the numbers that are read, but for codes."""


class _Safetensors:
    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.file = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: not a complete safetensors file ({error})") from error

    def names(self) -> Iterable[str]:
        return list(self.file.keys())

    def tensor(self, name: str) -> Tensor:
        return self.file.get_tensor(name)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        rows: Tensor = self.file.get_slice(name)[start:stop]
        return rows

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.file.get_slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        stored = self.file.get_slice(name).get_dtype()
        if stored not in str_to_torch_dtype:
            raise InputError(f"{self.path}: {name} is stored in a type that is not known here ({stored})")
        return str_to_torch_dtype[stored]

    def stored_type(self, name: str) -> str:
        return type_name(self.dtype(name))


class InMemory:
    """Tensors that are in memory already, on any device; each is given on the host."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors

    def names(self) -> Iterable[str]:
        """Names of the tensors."""
        return list(self.tensors)

    def tensor(self, name: str) -> Tensor:
        """One tensor."""
        return self.tensors[name].detach().cpu()

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Some of its rows."""
        return self.tensors[name][start:stop].detach().cpu()

    def shape(self, name: str) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.tensors[name].shape)

    def dtype(self, name: str) -> torch.dtype:
        """Its type."""
        return self.tensors[name].dtype

    def stored_type(self, name: str) -> str:
        """Its type's name."""
        return type_name(self.dtype(name))


def type_name(dtype: torch.dtype) -> str:
    """`float32`."""
    return str(dtype).removeprefix("torch.")


def _unpickled(path: Path) -> InMemory:
    """The tensors of a pickled file, mapped where its format allows."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: a pickled file that is damaged, or that would run code when opened; only tensors are read "
            "(save the weights as safetensors)"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"{path}: not a complete file of weights ({one_line(error)})") from error
    return InMemory(_unwrapped(path, content))


def _unwrapped(path: Path, content: Any) -> dict[str, Tensor]:
    """The named tensors in what a pickled file holds."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    tensors = {}
    if isinstance(content, Mapping):
        tensors = {name: value.detach() for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors or not all(isinstance(name, str) for name in tensors):
        raise InputError(f"{path}: holds no named tensors, at the top or under {' or '.join(_WRAPPERS)}")
    return tensors


def open_file(path: Path) -> TensorFile:
    """Open one file of tensors.

    Raises:
        InputError: if it is missing, cut short, or holds more than tensors.
    """
    return _Safetensors(path) if path.suffix == ".safetensors" else _unpickled(path)


@dataclass(frozen=True)
class TensorFiles:
    """All tensors of a model folder or of a state-dict file, under their stored names (without a wrapper's prefix).

    Attributes:
        source: what it is called in errors.
        places: name -> (file, name in the file).
        unlisted: names in the shards that the index does not list.
        rules: how the names become a model's, where the kind of file says it; None for the model's own rules.
    """

    source: str
    places: Mapping[str, tuple[TensorFile, str]]
    unlisted: tuple[str, ...] = ()
    rules: Sequence[WeightTransform] | None = None

    @classmethod
    def open(cls, source: Source, model: HookNames) -> TensorFiles:
        """Open the weights of a source; the headers are read, the data not.

        Args:
            source: what holds them.
            model: the one that they are of.

        Raises:
            InputError: if a file is missing or damaged, or an index names a tensor that its file lacks.
        """
        if source.kind == "gguf":
            tensors = GgufTensors(GgufHeader.read(source.path), model.skeleton)
            return cls(source.given, {name: (tensors, name) for name in tensors.names()}, rules=tensors.rules)
        files = source.weight_files()
        if files[0].suffix == ".json":
            index = read_index(files[0])
            shards = {path.name: open_file(path) for path in files[1:]}
            held = {file: set(shard.names()) for file, shard in shards.items()}
            for name, file in index.items():
                if name not in held[file]:
                    raise InputError(f"{source.given}: {file} lacks {name}, which the index says is in it")
            unlisted = sorted({name for names in held.values() for name in names} - index.keys())
            return cls(source.given, {name: (shards[file], name) for name, file in index.items()}, tuple(unlisted))
        single = open_file(files[0])
        names = list(single.names())
        prefix = _common_prefix(names) if source.kind == "tensors" else ""
        return cls(source.given, {name.removeprefix(prefix): (single, name) for name in names})

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Sorted names."""
        return tuple(sorted(self.places))

    def tensor(self, name: str) -> Tensor:
        """One tensor, mapped from its file."""
        file, stored = self.places[name]
        return file.tensor(stored)

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows `start` to `stop` of a tensor; the others are not read."""
        file, stored = self.places[name]
        return file.rows(stored, start, stop)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from the header."""
        file, stored = self.places[name]
        return file.shape(stored)

    def dtype(self, name: str) -> torch.dtype:
        """Type of a tensor, from the header."""
        file, stored = self.places[name]
        return file.dtype(stored)

    def stored_type(self, name: str) -> str:
        """What the file calls the type of a tensor: `float32`, `Q4_1`."""
        file, stored = self.places[name]
        return file.stored_type(stored)


def _common_prefix(names: list[str]) -> str:
    """The wrappers' prefixes that every name begins with."""
    prefix = ""
    while found := next((p for p in _PREFIXES if names and all(n.startswith(prefix + p) for n in names)), None):
        prefix += found
    return prefix
