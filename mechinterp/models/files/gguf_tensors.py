"""Single tensors of a GGUF file, under the names and in the layout of the transformers model that it holds.

A GGUF file has names of its own, and llama.cpp lays some weights out otherwise (Llama's query and key rows permuted,
GPT-2's matrices transposed, Gemma's norms one larger). Names and layouts are undone by transformers' own rules, the
ones that `from_pretrained(..., gguf_file=...)` applies to a whole file; here they are applied to one tensor at a time.
Codes are turned into numbers by the package `gguf`; whatever the file stores, float32 is read, and nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from gguf import dequantize
from torch import Tensor
from transformers import PreTrainedModel
from transformers.core_model_loading import WeightTransform
from transformers.integrations.gguf.utils import get_gguf_conversion_mapping, is_gguf_arch_supported
from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map

from mechinterp.errors import InputError
from mechinterp.models.gguf_config import FREQUENCIES
from mechinterp.models.gguf_header import GgufHeader


class GgufTensors:
    """The tensors of one file, read one at a time.

    Attributes:
        rules: how the names here become the model's own, for architectures whose tensors transformers reads by such
            rules; None where they are the model's own already.
    """

    def __init__(self, header: GgufHeader, skeleton: PreTrainedModel) -> None:
        """Find the model's name of every tensor.

        Raises:
            InputError: if transformers knows no names for the architecture.
        """
        self.header = header
        stored = [name for name in header.tensors if name != FREQUENCIES]  # which is in the config
        self.rules: Sequence[WeightTransform] | None = None
        self.processor = TENSOR_PROCESSORS.get(header.architecture, TensorProcessor)(skeleton.config.to_dict())
        self.own: dict[str, str] = {}
        if is_gguf_arch_supported(header.architecture):
            self.rules = get_gguf_conversion_mapping(header.architecture, skeleton.config)
            self.processor = TensorProcessor()
            self.own = {name: name for name in stored}
        else:
            try:
                self.own = _own_names(skeleton, self.processor, stored)
            except NotImplementedError as error:
                raise InputError(
                    f"{header.path}: transformers has no names for its tensors ({skeleton.config.model_type}); give "
                    "the model's transformers folder"
                ) from error
        self.parts: dict[str, list[str]] = {}  # of each of the model's tensors; experts are stored in pieces
        for name in stored:
            self.parts.setdefault(_own_name(self.own, name) or name, []).append(name)

    def names(self) -> Iterable[str]:
        """The model's own names, but for what it has no place for, which keeps its name in the file."""
        return list(self.parts)

    def tensor(self, name: str) -> Tensor:
        """One tensor, in float32."""
        made: dict[str, dict[str, Tensor]] = {"tensors": {}}
        for part in self.parts[name]:
            numbers = dequantize(self.header.stored(part), self.header.tensors[part].type)
            numbers = numbers.astype(np.float32, copy=not numbers.flags.writeable)
            place, laid_out = self._laid_out(part, numbers, made)
            if place is not None:
                made["tensors"][name] = torch.from_numpy(np.ascontiguousarray(laid_out))
        return made["tensors"][name]

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Some of its rows."""
        return self.tensor(name)[start:stop]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape in the model, without reading the data."""
        first, *more = (self.header.tensors[part].shape for part in self.parts[name])
        if len(first) > 2:  # experts, in pieces joined along their rows
            return (first[0], first[1] + sum(shape[1] for shape in more), *first[2:])
        with np.errstate(all="ignore"):
            made: dict[str, dict[str, Tensor]] = {"tensors": {}}
            empty = np.broadcast_to(np.zeros((), np.float32), first)  # takes no memory
            place, laid_out = self._laid_out(self.parts[name][0], empty, made)
        return tuple(made["tensors"][name].shape) if place is None else laid_out.shape

    def dtype(self, name: str) -> torch.dtype:
        """What is read: float32 always."""
        return torch.float32

    def stored_type(self, name: str) -> str:
        """GGML's name of the type in the file, `Q4_1`, or of the types of its parts; of plain float32 that."""
        kinds = {self.header.tensors[part].type.name for part in self.parts[name]}
        return "float32" if kinds == {"F32"} else "+".join(sorted(kinds))

    def _laid_out(self, part: str, numbers: np.ndarray[Any, Any], made: dict[str, dict[str, Tensor]]) -> Any:
        """As the model has it, with its name in the file; without one where it was put into `made`."""
        found = self.processor.process(weights=numbers, name=part, tensor_key_mapping=self.own, parsed_parameters=made)
        return found.name, found.weights


def _own_names(skeleton: PreTrainedModel, processor: TensorProcessor, stored: Collection[str]) -> dict[str, str]:
    """The model's name of each name in a file.

    transformers looks at the model and then at every module in it, as a few files (Bloom's) lack the outer module's
    name. Each look takes as long as the first, so that the others are taken only where names are left.
    """
    alone = SimpleNamespace(config=skeleton.config, state_dict=skeleton.state_dict, named_children=tuple)
    found = get_gguf_hf_weights_map(alone, processor)
    if not all(_own_name(found, name) for name in stored):
        found = get_gguf_hf_weights_map(skeleton, processor)
    return found


def _own_name(names: dict[str, str], stored: str) -> str | None:
    return names.get(stored) or names.get(stored.removesuffix(".weight"))
