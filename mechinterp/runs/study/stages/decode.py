"""Stage `decode`: what can still be read off the states of every checkpoint, and of random weights."""

from __future__ import annotations

from mechinterp.answers.wording import UNSAFELY, Wording
from mechinterp.audit.decodability import RANDOM, Asked, Decoded, decode
from mechinterp.audit.evidence import Baseline
from mechinterp.audit.store import Store
from mechinterp.data.storage.files import remove
from mechinterp.data.storage.provenance import code_of, digest, library_versions
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.generation import continue_greedily
from mechinterp.models.progress import Reporter
from mechinterp.models.random_weights import with_random_weights
from mechinterp.runs.study.checkpoints import checkpoint_of, opened
from mechinterp.runs.study.instances import instances_of
from mechinterp.runs.study.run import Run


def make(run: Run, reporter: Reporter) -> None:
    """`decodability.csv`; checkpoints of a stage that was stopped are not read again."""
    vanilla, truncate, seed = checkpoint_of(run, "vanilla"), run.config.truncate, run.seed
    instances, unsafe = instances_of(run, "test"), Baseline.load(run.folder / "evidence" / "base").unsafe
    prompts = [instance.prompt for instance in instances]
    begun = continue_greedily(vanilla, prompts, max_new_tokens=1, truncate=truncate, quiet=True)
    asked, kept = Asked.of(instances, unsafe, begun, seed=seed), Store(run.folder / "decoding")
    key = [library_versions(), code_of("mechinterp.audit.decodability"), digest(repr(asked)), truncate]

    def read(name: str, checkpoint: Checkpoint) -> Decoded:
        def make() -> Decoded:
            reporter.note(f"reading {name}")
            return decode(name, checkpoint, asked, truncate=truncate)

        return kept.keep("decodability", [key, name, checkpoint.fingerprint], load=Decoded.load, make=make)

    found = [read("base", vanilla), read(RANDOM, with_random_weights(vanilla, seed=seed))]
    for name in (*(["never"] if run.config.has_never else []), *run.config.studied):
        with opened(run, name) as checkpoint:
            found.append(read(name, checkpoint))
    table, wording = Decoded.together(found), Wording.named(run.config.behaviour or UNSAFELY.name)
    table["reason"] = table["reason"].map(wording.worded)
    run.write_table("decodability", table)
    remove(kept.folder)
