"""Compare any number of checkpoints with their base, and leave tables, figures and a report.

One model is in memory at a time: each is opened when its turn comes, and only if what is wanted of it was not recorded
before. Checkpoints of one training run, by their steps, are a trajectory.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from mechinterp import processes
from mechinterp.comparison import compare
from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.errors import InputError
from mechinterp.evaluation.judges import Judge
from mechinterp.evidence import Baseline, ComparisonSettings, Evidence, Inputs, gather_evidence, prepare_baseline
from mechinterp.files import write_json, write_table
from mechinterp.location import histogram, locate, toxic_block
from mechinterp.measures.probe import ToxicProbe
from mechinterp.measures.region import Distance
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.comparability import check_comparable, check_same_tokens
from mechinterp.models.sources import Source, read_json, source_files
from mechinterp.models.tokens import tokenizer_fingerprint
from mechinterp.provenance import code_hash, digest, versions
from mechinterp.stages import hash_path, locked, peak_memory
from mechinterp.store import Store
from mechinterp.trajectory import Step, trajectory_table

if TYPE_CHECKING:
    from mechinterp.study import Reporter


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
        """What changes whenever one of its files does; None if a hub id is part of it, which has none here."""
        chain = [Source.find(self.source)]
        while (below := chain[-1].base(self.base if len(chain) == 1 else None)) is not None:
            chain.append(below)
        if any(source.kind == "hub" for source in chain):
            return None
        files = [(str(path), path.stat()) for path in source_files(self.source, self.base)]
        described = [[path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino] for path, stat in files]
        return [[str(source.path) for source in chain], described, self.options.get("dtype", "auto")]


def stands_on(source: str, base: str) -> tuple[str, str]:
    """A checkpoint compared with `base`, and what it stands on, where it stands on anything.

    That is the comparison's base; for `ADAPTER@MODEL` that model; and for an adapter whose config names a model that is
    there, that one: it may have been trained on another than the comparison's base (DPO's on SFT's result).

    Returns:
        The source and its base.

    Raises:
        InputError: if an adapter names a model that is not there and is not `base` by its name: merged into another
            model than its own it would be a checkpoint that never was.
    """
    path, separator, own = source.rpartition("@")
    if separator and path and own and not Path(source).exists():
        return path, own
    found = Source.find(source)
    if found.kind != "adapter":
        return source, base
    named = read_json(found.path / "adapter_config.json").get("base_model_name_or_path")
    if not named or Path(str(named)).name == Path(base).resolve().name:
        return source, base
    try:
        there = found.base(None)
    except InputError:
        there = None
    if there is not None and there.kind != "hub":
        return source, there.place
    raise InputError(
        f"{source}: this adapter was trained on {named}, which is not here; is that {base}? Say what it stands on: "
        f"{source}@MODEL"
    )


def compare_checkpoints(
    base: Candidate,
    tuned: Sequence[Candidate],
    instances: Sequence[SafeEditInstance],
    probe: ToxicProbe,
    judge: Judge,
    *,
    out: Path,
    cache: Path | None = None,
    block: int | None = None,
    distance: Distance = "released",
    seed: int = 0,
    settings: ComparisonSettings | None = None,
    truncate: bool = False,
    reporter: Reporter | None = None,
) -> Path:
    """Compare checkpoints with their base, one in memory at a time; what was recorded before is not recorded again.

    Args:
        base: the unedited model.
        tuned: what is compared with it.
        instances: test instances; half of them, seeded, serve to fit the directions that are checked on the others.
        probe: of the base.
        judge: of the base's answers.
        out: folder for `tables`, `figures`, `manifest.json` and `report.html`.
        cache: folder of the recordings, may be shared by many comparisons; `out/recordings` if not given.
        block: the toxic layer; None to locate it.
        distance: by which it is located.
        truncate: cut prompts that exceed the context from the left (responses to locate it at their end), or raise.

    Returns:
        The report's path.
    """
    from mechinterp.plates import PLATES, draw_all
    from mechinterp.report import write_report
    from mechinterp.study import Silent

    reporter, settings = reporter or Silent(), settings or ComparisonSettings()
    if not tuned:
        raise InputError("there are no tuned checkpoints to compare with the base")
    names = [candidate.name for candidate in (base, *tuned)]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"the checkpoints' names {repeated} occur more than once")
    if (out / "stages").exists():
        raise InputError(f"{out}: holds a study; choose another folder for the comparison")
    skeleton = base.skeleton()
    skeleton.names.value_parameter(0)  # refuses blocks without a single value matrix
    texts = [text for i in instances for text in (i.adversarial_prompt, i.unsafe_generation)]
    sources = {base.name: skeleton.source}
    for candidate in tuned:  # before anything long is started
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
    with locked(out) if processes.is_main() else nullcontext():
        code = {"versions": versions(), "code": code_hash()}
        desk = _Desk(Store(cache or out / "recordings"), reporter, code)
        common = {**code, "data": _fingerprint(instances)}
        identity = desk.identify(base)
        probe.check(identity["weights"], base.source)
        tables: dict[str, pd.DataFrame] = {}
        if block is None:
            located = desk.store.keep(
                "located",
                [common, identity, truncate],
                load=_Located.load,
                make=lambda: _Located(
                    locate(desk.open(base), instances, truncate=truncate, progress=reporter.progress("locating"))
                ),
            )
            block = toxic_block(located.table, distance)
            tables["toxic_layer"] = histogram(located.table, skeleton.n_blocks)
        at = skeleton.names.check_block(block)
        recorded = settings.model_dump(exclude={"top_neurons"})
        chosen = [at, seed, truncate, recorded, _fingerprint_of_judge(judge), probe.direction.tolist()]
        baseline = desk.store.keep(
            "baseline",
            [common, identity, chosen],
            load=Baseline.load,
            make=lambda: prepare_baseline(
                desk.open(base),
                instances,
                probe,
                judge,
                block=at,
                seed=seed,
                settings=settings,
                truncate=truncate,
                note=reporter.note,
            ),
        )
        identities = {base.name: identity}

        def evidence() -> Iterator[tuple[str, Evidence]]:
            for candidate in tuned:
                identities[candidate.name] = found = desk.identify(candidate)
                key = [common, found, baseline.inputs.fingerprint]
                make = partial(desk.gather, candidate, baseline.inputs)
                yield candidate.name, desk.store.keep("evidence", key, load=Evidence.load, make=make)

        tables |= compare(baseline, evidence(), top_neurons=settings.top_neurons).tables
        desk.close()
        if steps := {candidate.name: candidate.step for candidate in tuned if candidate.step is not None}:
            tables["trajectory"] = trajectory_table(steps, tables)
        for name, found in identities.items():
            if name != base.name and found["weights"] == identity["weights"]:
                reporter.note(f"{name} has the very weights of the base: was the edit never saved?")
        manifest = {
            "config": {
                "checkpoints": sources,
                "block": block,
                "distance": distance,
                "judge": judge.name,
                "comparison": settings.model_dump(),
                "truncate": truncate,
            },
            "seed": seed,
            "versions": versions(),
            "fingerprints": {name: found["weights"] for name, found in identities.items()},
            "peak_memory_gib": round(peak_memory(), 3),
        }
        if processes.is_main():
            # of an earlier comparison: the report would show them, or they would stand beside it
            drawn = [out / "figures" / f"{name}.{kind}" for name in PLATES for kind in ("png", "pdf")]
            for path in (*(out / "tables").glob("*.csv"), *drawn):
                path.unlink(missing_ok=True)
            for name, table in tables.items():
                write_table(out / "tables" / f"{name}.csv", table)
            write_json(out / "manifest.json", manifest)
            draw_all(out)
            write_report(out)
        processes.wait()
        return out / "report.html"


class _Desk:
    """Where checkpoints are looked at: at most one of them lies there."""

    def __init__(self, store: Store, reporter: Reporter, common: Any) -> None:
        self.store, self.reporter, self.common = store, reporter, common
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

    def gather(self, candidate: Candidate, inputs: Inputs) -> Evidence:
        """Record the checkpoint."""
        checkpoint = self.open(candidate)
        self.reporter.note(f"recording {candidate.name}")
        return gather_evidence(checkpoint, inputs)

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
            return {"weights": checkpoint.fingerprint, "tokenizer": tokenizer_fingerprint(checkpoint.tokenizer)}

        signature = candidate.signature()
        return look() if signature is None else self.store.remember("identities", [self.common, signature], look)


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
        return cls(pd.read_csv(folder / "located.csv", keep_default_na=False))


def _fingerprint(instances: Sequence[SafeEditInstance]) -> str:
    return digest([instance.model_dump(mode="json") for instance in instances])


def _fingerprint_of_judge(judge: Judge) -> str:
    """The embedded judge is made from data and seed; one at a path is what its files are."""
    path = Path(judge.name)
    return digest([judge.name, hash_path(path) if path.exists() else ""])
