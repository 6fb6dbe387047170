"""A checkpoint as it lies on disk: what it stands on, its config, its tokenizer; each looked up and read once."""

from __future__ import annotations

import filecmp
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from mechinterp.errors import InputError
from mechinterp.models.deltas import WeightDelta
from mechinterp.models.descriptions import read_config, read_tokenizer
from mechinterp.models.files.loading import check_adapter, check_files
from mechinterp.models.files.weights import LazyWeights
from mechinterp.models.gguf_header import GgufHeader
from mechinterp.models.names import HookNames
from mechinterp.models.sources import Source


@dataclass(frozen=True, eq=False)
class StoredCheckpoint:
    """A source and, below it, what it stands on.

    Attributes:
        source: the checkpoint itself.
        below: what it stands on, found (`Source.base`) or looked up before; None where it stands on nothing.
        trust_remote_code: whether code that lies with it may run.
        like: another one whose tokenizer is taken where its files hold the very same: of many checkpoints of one
            model, one is read and in memory.
    """

    source: Source
    below: Source | StoredCheckpoint | None = None
    trust_remote_code: bool = False
    like: StoredCheckpoint | None = None

    @classmethod
    def find(
        cls, source: str | Path | StoredCheckpoint, base: str | Path | None = None, *, trust_remote_code: bool = False
    ) -> StoredCheckpoint:
        """Look a checkpoint up, and what it stands on.

        Args:
            source: see `Checkpoint.load`; one that was looked up before is given back.
            base: see `Checkpoint.load`.
            trust_remote_code: whether code that lies with it may run.

        Raises:
            InputError: if there is no such checkpoint, or none that it could stand on.
        """
        if isinstance(source, StoredCheckpoint):
            return source
        found = Source.find(source)
        return cls(found, found.base(base), trust_remote_code)

    @cached_property
    def base(self) -> StoredCheckpoint | None:
        """What it stands on; of a whole model, what lends it a tokenizer."""
        if isinstance(self.below, Source):
            return StoredCheckpoint(self.below, self.below.base(None), self.trust_remote_code)
        return self.below

    @property
    def changes(self) -> StoredCheckpoint | None:
        """The model whose weights it changes, of an adapter or an edit."""
        return self.base if self.source.kind in ("adapter", "edit") else None

    @property
    def chain(self) -> tuple[StoredCheckpoint, ...]:
        """It and all that it stands on, in this order."""
        return (self, *(() if self.base is None else self.base.chain))

    @property
    def label(self) -> str:
        """What it is, in one line: `ADAPTER on MODEL`."""
        under = None if self.source.kind in ("model", "gguf") else self._under
        return self.source.given if under is None else f"{self.source.given} on {under.given}"

    @property
    def _under(self) -> Source | None:
        return self.below.source if isinstance(self.below, StoredCheckpoint) else self.below

    @property
    def files(self) -> tuple[Path, ...]:
        """Every local file that determines its weights, config and tokenizer, sorted; see `Source.files`."""
        return tuple(sorted({file for stored in self.chain for file in stored.source.files()}))

    @cached_property
    def config(self) -> PretrainedConfig:
        """The model's config; of an adapter, an edit or bare tensors it is that of the base.

        Raises:
            InputError: if it cannot be read, or is of no model that this transformers knows.
        """
        if self.source.whole:
            return read_config(self.source, trust_remote_code=self.trust_remote_code)
        if self.base is None:  # base() raises where a base is needed, so this is for the type checker
            raise InputError(f"{self.source.given}: there is no config")
        return self.base.config

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer that lies with it, else its base's.

        Raises:
            InputError: if neither has one, or it cannot be read.
        """
        if self.changes is not None and (self.source.kind == "edit" or not self.source.has_tokenizer):
            return self.changes.tokenizer
        if self.like is not None and self._described_as(self.like):
            return self.like.tokenizer
        return read_tokenizer(self.source, self._under, self.config, trust_remote_code=self.trust_remote_code)

    def _described_as(self, other: StoredCheckpoint) -> bool:
        """Whether the files of both tokenizers, and which class the config says they are of, are the same."""
        if not (self.source.has_tokenizer and self.source.kind == other.source.kind == "model"):
            return False
        if type(self.config) is not type(other.config) or _vocabulary(self.config) != _vocabulary(other.config):
            return False
        files = [{path.name: path for path in one.source.tokenizer_files()} for one in (self, other)]
        same = (filecmp.cmp(path, files[1][name], shallow=False) for name, path in files[0].items() if name in files[1])
        return files[0].keys() == files[1].keys() and all(same)

    @property
    def stored_types(self) -> dict[str, str]:
        """The type of every tensor in the GGUF file that it is or stands on, by its name there; of others nothing."""
        if self.changes is not None:
            return self.changes.stored_types
        if self.source.kind != "gguf":
            return {}
        return {name: tensor.type.name for name, tensor in GgufHeader.read(self.source.path).tensors.items()}

    @cached_property
    def names(self) -> HookNames:
        """Translator of hook point names for its architecture, whose `skeleton` is the model without weights."""
        return HookNames(self.config, self.source.given, self.trust_remote_code)

    @cached_property
    def skeleton(self) -> PreTrainedModel:
        """The model without weights, on the meta device, if the files are whole and fit the config.

        Raises:
            InputError: see `Checkpoint.skeleton`.
        """
        if self.changes is not None:
            model = self.changes.skeleton
            if self.source.kind == "adapter":
                check_adapter(self.source, model)
            else:
                shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
                WeightDelta.load(self.source.path).check_shapes(shapes, self.changes.source.given)
            return model
        if self.source.kind == "tensors":
            LazyWeights.of(self.source, self.config, self.trust_remote_code)
        else:
            check_files(self.source, self.config, trust_remote_code=self.trust_remote_code)
        return self.names.skeleton


def _vocabulary(config: PretrainedConfig) -> tuple[object, ...]:
    return tuple(getattr(config, name, None) for name in ("vocab_size", "tokenizer_class", "auto_map"))
