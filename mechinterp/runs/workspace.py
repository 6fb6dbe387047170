"""Where checkpoints are set against their base: a folder that is held, what is kept in it, one model at a time.

Of comparisons and relapse tests, which read checkpoints that are there and leave their results all at once. A study and
its benchmark make theirs: each stage, edit and answer is kept as soon as it is whole, by a key of its own, in a place
that later stages read (`stages`, `benchmark.making`), so that a killed run goes on half-way. What both need is shared
below this: the lock (`stages.locked`), the list of what was written and results that are moved in whole
(`data.storage`).
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import torch

from mechinterp.answers.judges import Judge
from mechinterp.answers.two_judges import deciding, second_of
from mechinterp.audit.location import locate
from mechinterp.audit.store import Store
from mechinterp.data.pairs import AnyPair
from mechinterp.data.storage.hashing import hash_path
from mechinterp.data.storage.ledger import set_of
from mechinterp.data.storage.provenance import code_of, digest, library_versions
from mechinterp.data.storage.tables import read_table, write_table
from mechinterp.errors import InputError
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.comparability import check_comparable, check_same_tokens
from mechinterp.models.equality import notes_of_equal
from mechinterp.models.memory import peak_bytes
from mechinterp.models.progress import Reporter, Silent
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.folder import RunFolder
from mechinterp.runs.stages import locked


class Workspace:
    """A folder in which checkpoints are set against their base.

    Args:
        base: the unedited model.
        tuned: what is set against it.
        out: folder of the results; None for a temporary one, which goes with the `RunFolder` that `publish` gives.
        of: the set of results: an earlier one makes way, and a folder that holds another is refused.
        purpose: what the results are for, as an error names it.
        cache: folder of what is kept; `out/recordings` if not given.
        never: a model that never learnt the behaviour, which is read beside them.
        reporter: told what is being done.

    Raises:
        InputError: for names that occur twice, a folder that holds a study or other results, or blocks without a single
            value matrix.
    """

    def __init__(
        self,
        base: Candidate,
        tuned: Sequence[Candidate],
        *,
        out: Path | None,
        of: str,
        purpose: str,
        cache: Path | None = None,
        never: Candidate | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        self.base, self.tuned, self.never, self.reporter = base, tuned, never, reporter or Silent()
        self._temporary: TemporaryDirectory[str] | None = None
        if out is None:
            self._temporary = TemporaryDirectory(prefix="mechinterp-")
            out = Path(self._temporary.name)
        self.folder, self.of = out, of
        self.store = Store(cache or self.folder / "recordings")
        self.identities: dict[str, Mapping[str, Any]] = {}
        self._opened: dict[bool, tuple[Candidate, Checkpoint]] = {}  # beside: the base, while both are needed
        self._together = False
        names = [candidate.name for candidate in (base, *tuned, *self._beside)]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise InputError(f"the checkpoints' names {repeated} occur more than once")
        if (self.folder / "stages").exists():
            raise InputError(f"{out}: holds a study; choose another folder for the {purpose}")
        if (other := set_of(self.folder / "manifest.json")) not in ("", of):
            raise InputError(f"{out}: holds the results of `{other}`; choose another folder for the {purpose}")
        base.skeleton.names.value_parameter(0)

    def check(self, texts: Sequence[str], *, truncate: bool) -> None:
        """Refuse checkpoints that cannot be set against the base on these texts, before anything long.

        Raises:
            InputError: for other architectures, sizes or tokens, or with `truncate` another context.
        """
        for candidate in (*self.tuned, *self._beside):
            check_tuned(self.base.skeleton, candidate, texts, truncate=truncate)
        if (chat := self.base.chat) is not None:
            self.reporter.note(f"chat format: {chat}")

    @property
    def _beside(self) -> Sequence[Candidate]:
        return [] if self.never is None else [self.never]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder; at the end no model is in memory."""
        with locked(self.folder) if processes.is_main() else nullcontext():
            try:
                yield
            finally:
                self.close()

    # -- one model in memory ------------------------------------------------------------------------------------

    def open(self, candidate: Candidate) -> Checkpoint:
        """A checkpoint, loaded unless it is in memory already; the one before leaves it."""
        beside = self._together and candidate is self.base
        if beside not in self._opened or self._opened[beside][0] is not candidate:
            self._close(beside)
            self.reporter.note(f"opening {candidate.name}: {candidate.source}")
            checkpoint = candidate.open()
            if checkpoint.source != candidate.source:
                self.reporter.note(f"{candidate.name} is {checkpoint.source}")
            self._opened[beside] = candidate, checkpoint
        return self._opened[beside][1]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Meanwhile the base stays in memory, beside one of the others."""
        if False in self._opened and self._opened[False][0] is self.base:
            self._opened[True] = self._opened.pop(False)
        self._together = True
        try:
            yield
        finally:
            self._together = False
            self._close(True)

    def close(self) -> None:
        """Put away what is in memory, and give its memory back."""
        for beside in list(self._opened):
            self._close(beside)

    def _close(self, beside: bool) -> None:
        self._opened.pop(beside, None)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    # -- what is known and kept ---------------------------------------------------------------------------------

    def identify(self, candidate: Candidate) -> Mapping[str, Any]:
        """Fingerprints of the weights as loaded and of the tokenizer; known without loading if no file changed."""
        if candidate.name not in self.identities:

            def look() -> Mapping[str, Any]:
                checkpoint = self.open(candidate)
                return {"weights": checkpoint.fingerprint, "tokenizer": checkpoint.tokenizer_fingerprint}

            signature = processes.from_main(candidate.signature())  # a moment more or less decides: for all at once
            key = [made_by("mechinterp.models.checkpoints"), signature]
            known = look() if signature is None else self.store.remember("identities", key, look)
            self.identities[candidate.name] = known
        return self.identities[candidate.name]

    def locate(self, instances: Sequence[AnyPair], *, truncate: bool, without_sinks: bool = False) -> pd.DataFrame:
        """The base's toxic layer of every instance (`location.locate`), from the store where it was made before."""

        def make() -> _Located:
            progress = self.reporter.progress("locating")
            base = self.open(self.base)
            found = locate(base, instances, truncate=truncate, without_sinks=without_sinks, progress=progress)
            return _Located(found)

        made, data = made_by("mechinterp.audit.location"), fingerprint_of_instances(instances)
        key = [made, data, self.identify(self.base), truncate, without_sinks]
        return self.store.keep("located", key, load=_Located.load, make=make).table

    # -- what is left -------------------------------------------------------------------------------------------

    def publish(
        self,
        tables: Mapping[str, pd.DataFrame],
        config: Mapping[str, Any],
        *,
        answers: Mapping[str, Any] | None = None,
        report: bool = False,
        **manifest: Any,
    ) -> RunFolder:
        """Say whose weights are equal, and leave tables, figures and manifest in the folder, all at once.

        Args:
            tables: by name.
            config: how they were made.
            answers: what was answered, by checkpoint.
            report: write the page, too.
            manifest: what else the manifest says.
        """
        weights = {name: found["weights"] for name, found in self.identities.items()}
        names = [candidate.name for candidate in (*self.tuned, *self._beside) if candidate.name in weights]
        for text in notes_of_equal(self.base.name, names, lambda a, b: weights[a] == weights[b]):
            self.reporter.note(text)
        if processes.is_main():
            opened = (self.base, *self.tuned, *self._beside)
            types = {each.name: each.stored_types for each in opened if each.stored_types}
            said = {"config": config, **manifest, **({"stored_types": types} if types else {})}
            said |= {"peak_memory_gib": round(peak_bytes() / 2**30, 3)}
            RunFolder.write(self.folder, self.of, tables, said, answers=answers, report=report)
        processes.wait()
        temporary, self._temporary = self._temporary, None  # it goes with what is returned
        return RunFolder(self.folder, temporary)


@dataclass(frozen=True)
class _Located:
    """The table of `locate`, to be kept."""

    table: pd.DataFrame

    def save(self, folder: Path) -> Path:
        """Write into a folder."""
        return write_table(folder / "located.csv", self.table)

    @classmethod
    def load(cls, folder: Path) -> _Located:
        """Read back what `save` wrote."""
        return cls(read_table(folder / "located.csv"))


def check_tuned(base: Checkpoint, candidate: Candidate, texts: Sequence[str], *, truncate: bool) -> None:
    """Refuse a checkpoint that cannot be set against a base on these texts; skeletons will do.

    Raises:
        InputError: for another architecture, size or tokens, or with `truncate` another context.
    """
    other = candidate.skeleton
    check_comparable(base, [other])
    check_same_tokens(base, other, texts)
    contexts = base.names.context_length, other.names.context_length
    if truncate and contexts[0] != contexts[1]:
        raise InputError(
            f"{other.source} has a context of {contexts[1]} tokens, {base.source} of {contexts[0]}: with `truncate` "
            "they would not read the same"
        )


def made_by(*modules: str) -> Mapping[str, Any]:
    """What everything that is kept depends on besides what it is made of: code, and versions of libraries."""
    return {"versions": library_versions(), "code": code_of(*modules)}


def fingerprint_of_instances(instances: Sequence[AnyPair]) -> str:
    """Hash of everything in them."""
    return digest([instance.model_dump(mode="json") for instance in instances])


def fingerprint_of_judge(judge: Judge) -> str:
    """Of a judge at a path what its files and safe label are, wherever it lies; of an embedded one what made it.

    Of two judges it is that of both, since the second one's scores are kept, too.
    """
    if (second := second_of(judge)) is not None:
        return digest([fingerprint_of_judge(one) for one in (deciding(judge), second)])
    path = Path(judge.name)
    label = getattr(judge, "safe_label", "")
    return digest(
        ["own", hash_path(path), label] if path.exists() else [judge.name, getattr(judge, "fingerprint", label)]
    )
