"""Checkpoints that are opened when their turn comes, and the desk on which one of them lies at a time."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from mechinterp.answers.judges import Judge
from mechinterp.audit.location import locate
from mechinterp.audit.store import Store
from mechinterp.audit.trajectory import Step
from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.data.storage.hashing import hash_path, settled, state_of
from mechinterp.data.storage.provenance import code_of, digest, library_versions
from mechinterp.data.storage.tables import read_table, write_table
from mechinterp.errors import InputError
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.comparability import check_comparable, check_same_tokens
from mechinterp.models.progress import Reporter
from mechinterp.models.sources import Source, source_files


@dataclass(frozen=True)
class Candidate:
    """A checkpoint that is opened when its turn comes.

    Attributes:
        name: in tables.
        source: what `Checkpoint.load` opens.
        base: what it stands on, where it does.
        options: dtype, device, device_map, trust_remote_code: how it is loaded.
        step: its place in a training run, if it is one of a trajectory.
    """

    name: str
    source: str
    base: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    step: Step | None = None

    def open(self) -> Checkpoint:
        """Load it."""
        return Checkpoint.load(self.source, base=self.base, name=self.name, **self.options)

    def skeleton(self) -> Checkpoint:
        """It without its weights."""
        trust = bool(self.options.get("trust_remote_code", False))
        return Checkpoint.skeleton(self.source, base=self.base, trust_remote_code=trust)

    def signature(self) -> Any:
        """What changes whenever one of its files does; None where that cannot be told.

        It cannot if a hub id is part of it, which has no files here, or if a file changed a moment ago (`hashing`).
        """
        chain = [Source.find(self.source)]
        while (below := chain[-1].base(self.base if len(chain) == 1 else None)) is not None:
            chain.append(below)
        if any(source.kind == "hub" for source in chain):
            return None
        now = time.time_ns()
        states = {str(path.resolve()): state_of(path) for path in source_files(self.source, self.base)}
        if not all(settled(state, now) for state in states.values()):
            return None
        return [[str(source.path.resolve()) for source in chain], states, self.options.get("dtype", "auto")]


def skeleton_of(base: Candidate, tuned: Sequence[Candidate], *, out: Path, purpose: str) -> Checkpoint:
    """The base without its weights, if checkpoints can be set against it in a folder.

    Args:
        out: where the results go.
        purpose: for which they are made, as an error names it.

    Raises:
        InputError: for names that occur twice, a folder that holds a study, or blocks without a single value matrix.
    """
    names = [candidate.name for candidate in (base, *tuned)]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"the checkpoints' names {repeated} occur more than once")
    if (out / "stages").exists():
        raise InputError(f"{out}: holds a study; choose another folder for the {purpose}")
    skeleton = base.skeleton()
    skeleton.names.value_parameter(0)
    return skeleton


def check_tuned(
    skeleton: Checkpoint, tuned: Sequence[Candidate], texts: Sequence[str], *, truncate: bool
) -> dict[str, str]:
    """What every tuned checkpoint is opened from, by its name, if all can be set against a base on these texts.

    Raises:
        InputError: for other architectures, sizes or tokens, or with `truncate` another context.
    """
    sources = {}
    for candidate in tuned:
        other = candidate.skeleton()
        check_comparable(skeleton, [other])
        check_same_tokens(skeleton, other, texts)
        contexts = skeleton.names.context_length, other.names.context_length
        if truncate and contexts[0] != contexts[1]:
            raise InputError(
                f"{other.source} has a context of {contexts[1]} tokens, {skeleton.source} of {contexts[0]}: with "
                "--truncate they would not read the same"
            )
        sources[candidate.name] = other.source
    return sources


class Desk:
    """Where checkpoints are looked at: at most one of them lies there."""

    def __init__(self, store: Store, reporter: Reporter) -> None:
        self.store, self.reporter = store, reporter
        self.lying: tuple[Candidate, Checkpoint] | None = None

    def open(self, candidate: Candidate) -> Checkpoint:
        """The checkpoint, loaded unless it lies there already."""
        if self.lying is None or self.lying[0] is not candidate:
            self.close()
            self.reporter.note(f"opening {candidate.name}: {candidate.source}")
            checkpoint = candidate.open()
            if checkpoint.source != candidate.source:
                self.reporter.note(f"{candidate.name} is {checkpoint.source}")
            self.lying = candidate, checkpoint
        return self.lying[1]

    def close(self) -> None:
        """Put the checkpoint away, and give its memory back."""
        self.lying = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def identify(self, candidate: Candidate) -> Mapping[str, Any]:
        """Fingerprints of the weights as loaded and of the tokenizer; known without loading if no file changed."""

        def look() -> Mapping[str, Any]:
            checkpoint = self.open(candidate)
            return {"weights": checkpoint.fingerprint, "tokenizer": checkpoint.tokenizer_fingerprint}

        signature = processes.from_main(candidate.signature())  # a moment more or less decides: for all at once
        if signature is None:
            return look()
        return self.store.remember("identities", [made_by("mechinterp.models.checkpoints"), signature], look)

    def locate(self, base: Candidate, instances: Sequence[SafeEditInstance], *, truncate: bool) -> pd.DataFrame:
        """The toxic layer of every instance (`location.locate`), from the store where it was made before."""

        def make() -> Located:
            progress = self.reporter.progress("locating")
            return Located(locate(self.open(base), instances, truncate=truncate, progress=progress))

        data = fingerprint_of_instances(instances)
        key = [made_by("mechinterp.audit.location"), data, self.identify(base), truncate]
        return self.store.keep("located", key, load=Located.load, make=make).table


@dataclass(frozen=True)
class Located:
    """The table of `locate`, to be kept."""

    table: pd.DataFrame

    def save(self, folder: Path) -> Path:
        """Write into a folder."""
        return write_table(folder / "located.csv", self.table)

    @classmethod
    def load(cls, folder: Path) -> Located:
        """Read back what `save` wrote."""
        return cls(read_table(folder / "located.csv"))


def made_by(*modules: str) -> Mapping[str, Any]:
    """What everything that is kept depends on besides what it is made of: code, and versions of libraries."""
    return {"versions": library_versions(), "code": code_of(*modules)}


def fingerprint_of_instances(instances: Sequence[SafeEditInstance]) -> str:
    """Hash of everything in them."""
    return digest([instance.model_dump(mode="json") for instance in instances])


def fingerprint_of_judge(judge: Judge) -> str:
    """One at a path is what its files are, wherever it lies; an embedded judge is what it is made from."""
    path = Path(judge.name)
    return digest(["own", hash_path(path)] if path.exists() else [judge.name, getattr(judge, "fingerprint", "")])
