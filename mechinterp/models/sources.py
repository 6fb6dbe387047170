"""What a path or hub id holds: a model, an adapter, an edit, or bare tensors; and the files that determine it.

Nothing here reads a weight. The names of files are those that transformers, peft and this package write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mechinterp.errors import InputError
from mechinterp.models.packages import PACKAGE, model_in_package

Kind = Literal["model", "gguf", "adapter", "edit", "tensors", "hub"]

# In the order in which transformers looks for them.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
TENSOR_FILES = (".safetensors", ".bin", ".pt", ".pth")
GGUF = ".gguf"
_VOCABULARIES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
)
_TOKENIZER = (
    *("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template*"),
    *("*.model", "*.tiktoken", "tekken.json"),
)
_DESCRIPTIONS = ("config.json", "generation_config.json", "adapter_config.json", "edit.json", "*.py", *_TOKENIZER)
_HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?$")


@dataclass(frozen=True)
class Source:
    """A place that a checkpoint can be opened from.

    Attributes:
        given: as the user wrote it.
        kind: `model`, a transformers folder; `gguf`, a GGUF file, which is a whole model; `adapter`, a peft folder;
            `edit`, a folder of a `WeightDelta`; `tensors`, a state-dict file; `hub`, an id that is no local path.
        path: the folder or file; for a hub id the id, which is not there.
    """

    given: str
    kind: Kind
    path: Path

    @classmethod
    def find(cls, source: str | Path) -> Source:
        """Say what a path, a hub id or `package:NAME` holds.

        Raises:
            InputError: if there is nothing there, or nothing that can be opened.
        """
        given, path = str(source), Path(source).expanduser()
        if given.startswith(PACKAGE):
            return cls(given, "gguf", model_in_package(given))
        if path.is_file():
            if path.suffix == GGUF:
                return cls(given, "gguf", path)
            if path.suffix not in TENSOR_FILES:
                raise InputError(f"{given}: not a file of weights (those end in {', '.join((*TENSOR_FILES, GGUF))})")
            return cls(given, "tensors", path)
        if path.is_dir():
            return cls(given, _kind(given, path), path)
        looks_local = given.startswith((".", "~", "/")) or path.suffix in (*TENSOR_FILES, GGUF)
        if looks_local or not _HUB_ID.match(given):
            raise InputError(f"{given}: no such folder or file (a hub id has the form OWNER/NAME)")
        return cls(given, "hub", path)

    @property
    def name(self) -> str:
        """Label for tables: the name of the folder, of the file without its ending, or of the model on the hub."""
        path = self.path if self.kind == "hub" else self.path.resolve()
        return path.stem if self.kind in ("tensors", "gguf") else path.name

    @property
    def whole(self) -> bool:
        """Whether it is a whole model, which stands on nothing."""
        return self.kind in ("model", "gguf", "hub")

    @property
    def place(self) -> str:
        """By what it is opened again: the path, or the hub id."""
        return self.given if self.kind == "hub" else str(self.path)

    @property
    def has_tokenizer(self) -> bool:
        """Whether tokenizer files stand in the folder; a hub id and a GGUF file are taken to have one."""
        if self.kind in ("hub", "gguf"):
            return True
        return self.path.is_dir() and (
            any((self.path / name).is_file() for name in _VOCABULARIES) or any(self.path.glob("*.tiktoken"))
        )

    def weight_files(self) -> tuple[Path, ...]:
        """The files that hold the weights (for an adapter and an edit, the change), with an index before its shards.

        Raises:
            InputError: if there are none, or the index is damaged or names a file that is missing.
        """
        if self.kind == "hub":
            return ()
        if self.kind in ("tensors", "gguf"):
            return (self.path,)
        wanted = {"model": WEIGHTS, "adapter": ADAPTER_WEIGHTS, "edit": ("delta.safetensors",)}[self.kind]
        found = next((self.path / name for name in wanted if (self.path / name).is_file()), None)
        if found is None:
            raise InputError(f"{self.given}: no weights in it; there should be {' or '.join(wanted)}")
        if found.suffix != ".json":
            return (found,)
        shards = sorted({found.with_name(file) for file in read_index(found).values()})
        if missing := [shard.name for shard in shards if not shard.is_file()]:
            raise InputError(f"{self.given}: shard {missing[0]} is missing ({len(missing)} of {len(shards)} are)")
        return (found, *shards)

    def files(self) -> tuple[Path, ...]:
        """Every file here that determines the weights, the config and the tokenizer; of what it stands on, none.

        What else lies in the folder (a trainer's state, logs) is left out. A hub id has no files of its own here.

        Raises:
            InputError: as `weight_files`.
        """
        return (*self.weight_files(), *self._matching(_DESCRIPTIONS))

    def tokenizer_files(self) -> tuple[Path, ...]:
        """Of these, the files of the tokenizer."""
        return self._matching(_TOKENIZER)

    def _matching(self, patterns: Iterable[str]) -> tuple[Path, ...]:
        found = {path for pattern in patterns for path in self.path.glob(pattern)} if self.path.is_dir() else set()
        return tuple(sorted(path for path in found if path.is_file()))

    def base(self, given: str | Path | Source | None) -> Source | None:
        """What this stands on: the base that is given, else the one that an adapter names, else None for a model.

        Raises:
            InputError: if a base is needed and there is none.
        """
        if given is not None:
            base = given if isinstance(given, Source) else Source.find(given)
        elif self.kind == "adapter":
            base = self._named_base()
        elif self.kind in ("edit", "tensors"):
            what = "an edit" if self.kind == "edit" else "a file of weights"
            raise InputError(f"{self.given}: {what} stands on a model; say on which (base)")
        else:
            return None
        if not self.whole and base.kind != "hub" and base.path.resolve() == self.path.resolve():
            raise InputError(f"{self.given}: cannot be its own base")
        if not self.whole:
            self._check_ends(base)
        return base

    def _check_ends(self, base: Source) -> None:
        """Refuse adapters that name each other as their bases, which would never come to a model."""
        passed = [self.path.resolve()]
        while base.kind == "adapter":
            passed.append(base.path.resolve())
            base = base._named_base()
            if base.kind != "hub" and base.path.resolve() in passed:
                raise InputError(
                    f"{self.given}: its bases stand on each other ({base.given} comes back); give one (base)"
                )

    def _named_base(self) -> Source:
        """The base that an adapter's config names: a path from the current folder or from the adapter's, or an id."""
        name = read_json(self.path / "adapter_config.json").get("base_model_name_or_path")
        if not name:
            raise InputError(f"{self.given}: its adapter_config.json names no base model; give one (base)")
        if not isinstance(name, str):
            raise InputError(
                f"{self.given}: its adapter_config.json names the base by a {type(name).__name__}, not by a path or "
                "hub id; give one (base)"
            )
        places = [Path(name).expanduser(), self.path / name, self.path.parent / name]
        there = {
            place.resolve(): place
            for place in reversed(places)
            if place.is_dir() or (place.suffix == GGUF and place.is_file())
        }
        there.pop(self.path.resolve(), None)
        if len(there) > 1:
            listed = " and ".join(sorted(map(str, there)))
            raise InputError(
                f"{self.given}: the base that its adapter_config.json names ({name}) may be {listed}; give one (base)"
            )
        for place in there.values():
            return Source.find(place)
        try:
            return Source.find(name)
        except InputError as error:
            raise InputError(
                f"{self.given}: the base that its adapter_config.json names is not there ({name}); give one (base)"
            ) from error


def _kind(given: str, folder: Path) -> Kind:
    weights = any((folder / name).is_file() for name in WEIGHTS)
    if (folder / "edit.json").is_file():
        return "edit"
    if (folder / "adapter_config.json").is_file():
        if weights:
            raise InputError(
                f"{given}: holds a whole model and an adapter, so it is not clear which is meant; split it"
            )
        return "adapter"
    if (folder / "config.json").is_file():
        return "model"
    if files := sorted(folder.glob(f"*{GGUF}")):
        raise InputError(f"{given}: not a model folder, but there is a GGUF file in it; give the file: {files[0]}")
    raise InputError(
        f"{given}: not a model folder, there is no config.json in it"
        + (" beside the weights" if weights else " (nor adapter_config.json or edit.json)")
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object that describes a checkpoint.

    Raises:
        InputError: naming the file.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: should hold a JSON object, not a {type(value).__name__}")
    return value


def read_index(path: Path) -> dict[str, str]:
    """The file of every tensor, from the index of a sharded checkpoint.

    Raises:
        InputError: naming the file.
    """
    shards = read_json(path).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(file, str) for file in shards.values()):
        raise InputError(f"{path}: not the index of a sharded checkpoint, it has no weight_map")
    if outside := [file for file in shards.values() if Path(file).name != file]:
        raise InputError(f"{path}: names a file outside its folder ({outside[0]})")
    return shards


def first_few(names: Iterable[str]) -> str:
    """The first three of some names, for an error's one line."""
    listed = sorted(names)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")
