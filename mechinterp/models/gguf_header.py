"""What a GGUF file says of itself: its settings, and the type, shape and place of every tensor; no weight is read.

A file is checked when it is opened: that it is one, whole, not one of several parts, and of types that are known here.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from transformers.integrations.gguf.reader import _read_metadata, _read_tensor_table  # gguf's own takes seconds

from mechinterp.errors import InputError

_DAMAGED = (ValueError, KeyError, IndexError, OverflowError, MemoryError, OSError, struct.error)
_ALIGNMENT = 32  # where a file names none


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies in its file.

    Attributes:
        type: GGML's, as `Q4_1`.
        shape: in torch's order.
        start: first byte in the file.
        stop: the byte after its last.
    """

    type: GGMLQuantizationType
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class GgufHeader:
    """A GGUF file without its weights; one object as long as the file is not written again.

    Attributes:
        path: of the file.
        settings: its metadata by key; of long arrays of texts (the vocabulary) only their lengths.
        tensors: by their names in the file.
    """

    path: Path
    settings: Mapping[str, Any] = field(repr=False)
    tensors: Mapping[str, StoredTensor] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> GgufHeader:
        """Read the header of a file.

        Raises:
            InputError: if it is no GGUF file, cut short, one part of several, or of a type that is not known.
        """
        try:
            found = path.stat()
            header = cls._read(path, found.st_size, found.st_mtime_ns)
        except _DAMAGED as error:
            reason = str(error).replace(f"{path} ", "").rstrip(".")
            raise InputError(f"{path}: not a complete GGUF file ({reason})") from error
        header._check(found.st_size)
        return header

    @classmethod
    @lru_cache(maxsize=4)
    def _read(cls, path: Path, size: int, written: int) -> GgufHeader:
        """Of a file of this size, written at this time: what it is remembered by."""
        blob = np.memmap(path, mode="r", dtype=np.uint8)
        settings, count, position = _read_metadata(blob, str(path))
        entries, position = _read_tensor_table(blob, count, position)
        alignment = int(settings.get("general.alignment", _ALIGNMENT))
        begin = -(-position // alignment) * alignment
        tensors = {name: _place(shape, kind, begin + offset) for name, shape, kind, offset in entries}
        return cls(path, settings, tensors)

    def _check(self, size: int) -> None:
        if (parts := int(self.settings.get("split.count", 0))) > 1:
            raise InputError(
                f"{self.path}: one of {parts} parts of a split GGUF file; join them first (llama-gguf-split --merge)"
            )
        if not self.tensors:
            raise InputError(f"{self.path}: there are no tensors in it, it is a vocabulary alone")
        last = max(tensor.stop for tensor in self.tensors.values())
        if last > size:
            raise InputError(f"{self.path}: cut short, its tensors end at byte {last:,} and the file at {size:,}")

    @property
    def architecture(self) -> str:
        """GGUF's name of it: `llama`, which Mistral's files say too, `gpt2`, `qwen2`, ..."""
        return str(self.settings["general.architecture"])

    def setting(self, name: str) -> Any:
        """A setting of the architecture's own (`rope.freq_base`); None where the file says nothing."""
        return self.settings.get(f"{self.architecture}.{name}")

    def stored(self, name: str) -> np.ndarray[Any, Any]:
        """The bytes of a tensor as they are stored, a row per row, mapped from the file."""
        tensor = self.tensors[name]
        blob = np.memmap(self.path, mode="r", dtype=np.uint8, offset=tensor.start, shape=(tensor.stop - tensor.start,))
        return blob.view(np.ndarray).reshape(*tensor.shape[:-1], -1)


def _place(shape: tuple[int, ...], kind: int, start: int) -> StoredTensor:
    stored = GGMLQuantizationType(kind)  # a ValueError for a type that is newer than the package
    elements, size = GGML_QUANT_SIZES[stored]
    if shape[-1] % elements:
        raise ValueError(f"rows of {shape[-1]} are not whole blocks of {stored.name}")
    return StoredTensor(stored, shape, start, start + math.prod(shape) // elements * size)
