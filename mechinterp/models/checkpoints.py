"""A checkpoint: a causal language model with its tokenizer, a name for tables, and a fingerprint of its weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from mechinterp.data.counting import many
from mechinterp.data.showing import one_line, shown
from mechinterp.data.storage.files import replacing
from mechinterp.errors import InputError
from mechinterp.models import processes
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.descriptions import read_tokenizer
from mechinterp.models.devices import resolve_device
from mechinterp.models.files.loading import (
    DTYPES,
    LoadingOptions,
    load_tensors,
    load_whole,
    merge_adapter,
)
from mechinterp.models.files.stored_checkpoint import StoredCheckpoint
from mechinterp.models.files.weights import LazyWeights, fingerprint_model
from mechinterp.models.names import HookNames
from mechinterp.models.sources import Source
from mechinterp.models.text.batches import padding_id
from mechinterp.models.text.chat import PLAIN, ChatChoice, ChatFormat, template_of
from mechinterp.models.text.tokenizer import tokenizer_fingerprint
from mechinterp.models.unembedding import norm_gain

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class Checkpoint:
    """A model, its tokenizer and where they came from.

    Attributes:
        name: label in tables and figures.
        source: folder or hub id it was loaded from, or how it was made.
        trust_remote_code: whether code that came with it may run; off unless it was loaded so.
        chat: the format in which prompts and responses are fed to it; None for plain text.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: str = "memory"
    trust_remote_code: bool = False
    chat: ChatFormat | None = None

    @classmethod
    def load(
        cls,
        source: str | Path | StoredCheckpoint,
        *,
        base: str | Path | None = None,
        name: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        device_map: str | None = None,
        trust_remote_code: bool = False,
        chat: ChatChoice | ChatFormat = PLAIN,
    ) -> Checkpoint:
        """Load a checkpoint of any kind; nothing is written to disk.

        Args:
            source: a transformers folder (single or sharded safetensors; pickled files with `weights_only=True`), a
                GGUF file (de-quantised: an ordinary model, in float32 unless another type is asked for), a peft
                adapter's folder (merged into its base in memory), an edit's folder (`WeightDelta`, applied to its
                base), a file with a state dict (`.safetensors`, `.bin`, `.pt`, `.pth`), or a hub id. Only a hub id
                needs the network. Or one that was looked up before, with what it stands on.
            base: the model that an adapter, an edit or a state dict stands on. An adapter may name its own; a
                transformers folder takes from it the tokenizer that it lacks, and nothing else.
            name: label; by default that of the folder or file.
            dtype: one of `auto` (as the config or else the files say), `float32`, `bfloat16`, `float16`.
            device: `auto` (CUDA when there is one), or a torch device; ignored with `device_map`.
            device_map: `auto` to spread a model over devices with accelerate.
            trust_remote_code: run code that comes with the checkpoint; off unless asked for.
            chat: the chat format, or which one is wanted; plain text if not given.

        Raises:
            InputError: if there is no such checkpoint, it is damaged, does not fit its base, holds NaN weights, or has
                no chat template where one is wanted.
        """
        if dtype not in DTYPES:
            raise InputError(f"dtype must be one of {DTYPES}, got {dtype!r}")
        if device_map is not None and processes.launched():
            raise InputError("`device_map` spreads one model over all devices: start one process, without a launcher")
        stored = StoredCheckpoint.find(source, base, trust_remote_code=trust_remote_code)
        options = LoadingOptions(dtype, resolve_device(device), device_map, stored.trust_remote_code)
        asked = chat if isinstance(chat, ChatFormat) else chat.of(stored.tokenizer, stored.label)
        checkpoint = cls._open(stored, options, asked)
        checkpoint.check_finite()
        return checkpoint if name is None else replace(checkpoint, name=name)

    @classmethod
    def _open(cls, stored: StoredCheckpoint, options: LoadingOptions, chat: ChatFormat | None) -> Checkpoint:
        source, tokenizer = stored.source, stored.tokenizer  # first, as it takes no time
        if stored.changes is not None:
            return cls._open(stored.changes, options, chat).changed_by(source, stored.label, tokenizer)
        if source.kind in ("tensors", "gguf"):
            below = None if stored.base is None else stored.base.source  # says how it generates
            model = load_tensors(source, below, stored.config, options)
        else:
            model = load_whole(source, stored.config, options)
        return cls(source.name, model, tokenizer, stored.label, options.trust_remote_code, chat)

    def changed_by(self, source: Source, label: str, tokenizer: PreTrainedTokenizerBase | None = None) -> Checkpoint:
        """An edit or an adapter put into this checkpoint's own weights, for good.

        Args:
            source: the edit's or adapter's folder.
            label: what the changed checkpoint is said to come from.
            tokenizer: an adapter's, if it has been read; else its own is read, if it has one.

        Raises:
            InputError: if it does not fit; the weights are then as they were.
        """
        whole = replace(self, name=source.name, source=label)
        if source.kind == "edit":
            return WeightDelta.load(source.path).apply_to(whole)
        if tokenizer is None and source.has_tokenizer:
            config, trust = whole.model.config, self.trust_remote_code
            tokenizer = read_tokenizer(source, None, config, trust_remote_code=trust)
        model = merge_adapter(whole.model, source)
        return replace(whole, model=model, tokenizer=whole.tokenizer if tokenizer is None else tokenizer)

    @classmethod
    def skeleton(
        cls,
        source: str | Path | StoredCheckpoint,
        *,
        base: str | Path | None = None,
        trust_remote_code: bool = False,
        chat: ChatFormat | None = None,
    ) -> Checkpoint:
        """A checkpoint without weights, on the meta device: for checks before anything long.

        Of local weights the headers are read, so that a missing or truncated file, or names and shapes that do not
        fit the config, are known at once; of an adapter, that its base is there.

        Raises:
            InputError: as `load`, but for what only the numbers show (NaN, an edit's fingerprint, an adapter's fit).
        """
        stored = StoredCheckpoint.find(source, base, trust_remote_code=trust_remote_code)
        tokenizer = stored.tokenizer
        return cls(stored.source.name, stored.skeleton, tokenizer, stored.label, stored.trust_remote_code, chat)

    def copied(self, *, name: str | None = None, source: str | None = None) -> Checkpoint:
        """A checkpoint with the same weights in memory of their own; what is not named stays as it is here."""
        return replace(self, name=name or self.name, source=source or self.source, model=copy.deepcopy(self.model))

    @cached_property
    def names(self) -> HookNames:
        """Translator of hook point names for this model."""
        return HookNames(self.model.config, self.source, self.trust_remote_code)

    @property
    def weights(self) -> LazyWeights:
        """The weights as what reads single tensors of files takes them; nothing is copied before it is asked for."""
        return LazyWeights.of_memory(dict(self.model.named_parameters(remove_duplicate=False)), self.names)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the weights as they were when first asked for."""
        return fingerprint_model(self.model)

    @cached_property
    def tokenizer_fingerprint(self) -> str:
        """Hash of what is made of texts: the tokenizer's when first asked for, and the chat format's after a dot."""
        own = tokenizer_fingerprint(self.tokenizer)
        return own if self.chat is None else f"{own}.{self.chat.fingerprint}"

    @property
    def padding_id(self) -> int:
        """Id used for padding, see `batches.padding_id`."""
        return padding_id(self.tokenizer, self.model.get_input_embeddings().weight.shape[0])

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        return self.names.n_blocks

    @property
    def device(self) -> torch.device:
        """Device of the embeddings: where inputs go."""
        return self.model.get_input_embeddings().weight.device

    def module(self, component: str) -> nn.Module:
        """The model's module for a TransformerLens component name."""
        return self.model.get_submodule(self.names.module(component))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters, by the model's own names (tied ones once)."""
        return {name: tuple(parameter.shape) for name, parameter in self.model.named_parameters()}

    def parameter(self, name: str) -> nn.Parameter:
        """A parameter by the model's own name."""
        return self.model.get_parameter(name)

    @torch.no_grad()
    def value_matrix(self, block: int) -> Float[Tensor, "d_mlp d_model"]:
        """W_V of a block (a view of the weights): row j is value vector v_j."""
        name, transposed = self.names.value_parameter(block)
        weight = self.parameter(name).detach()
        return weight.T if transposed else weight

    @torch.no_grad()
    def value_bias(self, block: int) -> Float[Tensor, " d_model"]:
        """Bias of the MLP's second matrix, zeros where the architecture has none."""
        name = self.names.value_bias_parameter(block)
        if name is None:
            return torch.zeros(self.names.d_model, device=self.value_matrix(block).device)
        return self.parameter(name).detach()

    @torch.no_grad()
    def final_norm_gain(self) -> tuple[Float[Tensor, " d_model"], bool]:
        """Gain of the final norm and whether it also subtracts the mean (LayerNorm), see `unembedding.norm_gain`."""
        norm = self.module("ln_final")
        like = next(norm.parameters(), self.model.get_input_embeddings().weight)
        return norm_gain(norm, like, self.names.d_model)

    def to_transformer_lens(self) -> TransformerBridge:
        """The whole TransformerLens toolbox on a copy of the model, whose weights are neither folded nor centred.

        A bridge replaces submodules of the model that it is given, so it gets a copy: this takes the model's memory
        once more, and what is done to the bridge leaves the checkpoint as it was. Do not save a bridge as a model.
        Its tokenizer puts the BOS token first, TransformerLens's convention: give it token ids where that matters.

        Raises:
            InputError: if TransformerLens has no adapter for the architecture.
        """
        from transformer_lens.model_bridge import TransformerBridge

        self.names.module("embed")  # raises for an architecture without an adapter
        with TemporaryDirectory() as folder:  # from which TransformerLens reads the tokenizer again
            self.tokenizer.save_pretrained(folder)
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            return TransformerBridge.boot_transformers(
                self.source, hf_model=copy.deepcopy(self.model), tokenizer=tokenizer
            )

    def check_finite(self) -> None:
        """Raise `InputError` naming the first parameter that is not finite."""
        for name, parameter in self.model.named_parameters():
            # The sum is finite unless an element is not (or it overflows, which the second look settles).
            if not torch.isfinite(parameter.detach().sum(dtype=torch.float32)) and not torch.isfinite(parameter).all():
                bad = int((~torch.isfinite(parameter)).sum())
                raise InputError(f"{self.source}: {name} has {bad} NaN or infinite values; the checkpoint is damaged")

    def save(self, folder: str | Path) -> Path:
        """Save model and tokenizer as an ordinary transformers folder; complete or not there at all.

        Raises:
            InputError: if the folder cannot be written, or holds only what this tool did not write. Files of the user's
                beside an earlier checkpoint of ours stay there.
        """
        tokenizer = self.tokenizer
        if self.chat is not None and template_of(tokenizer) != self.chat.template:  # of a file, which would be lost
            tokenizer = copy.deepcopy(tokenizer)
            tokenizer.chat_template = self.chat.template
        with replacing(Path(folder)) as partial:
            self.model.save_pretrained(partial)
            tokenizer.save_pretrained(partial)
        return Path(folder)

    def __repr__(self) -> str:
        kind, size = self.model.config.model_type, f"{many(self.n_blocks, 'block')}, d_model {self.names.d_model}"
        return one_line(self, self.name, kind, size, str(self.model.dtype)[6:], f"from {self.source}")

    def _repr_html_(self) -> str:
        table = pd.DataFrame(
            {
                "architecture": [self.model.config.model_type],
                "blocks": [self.n_blocks],
                "d_model": [self.names.d_model],
                "parameters": [f"{sum(parameter.numel() for parameter in self.model.parameters()):,}"],
                "type": [str(self.model.dtype).removeprefix("torch.")],
                "device": [str(self.device)],
            }
        )
        read = {} if self.chat is None else {"read in": str(self.chat)}
        return shown(f"checkpoint {self.name}", {"from": self.source, **read}, table)
