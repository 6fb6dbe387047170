"""What can still be read off the states of any number of checkpoints; one model is in memory at a time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mechinterp.answers.behaviour import UNSAFE, Behaviour
from mechinterp.answers.judges import Judge
from mechinterp.audit.decodability import RANDOM, Asked, Decoded, decode
from mechinterp.audit.evidence import ComparisonSettings
from mechinterp.audit.evidence.preparing import judged_answers
from mechinterp.data.pairs import AnyPair
from mechinterp.data.storage.provenance import versions
from mechinterp.errors import InputError
from mechinterp.models.passes.generation import continue_greedily
from mechinterp.models.progress import Reporter
from mechinterp.models.random_weights import with_random_weights
from mechinterp.models.text.chat import ChatChoice
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.folder import RunFolder
from mechinterp.runs.one_format import described, in_one_format
from mechinterp.runs.workspace import Workspace, fingerprint_of_instances, fingerprint_of_judge, made_by


def decode_checkpoints(
    base: Candidate,
    tuned: Sequence[Candidate],
    instances: Sequence[AnyPair],
    judge: Judge,
    *,
    out: Path | None,
    never: Candidate | None = None,
    behaviour: Behaviour = UNSAFE,
    max_new_tokens: int = 32,
    seed: int = 0,
    truncate: bool = False,
    chat: ChatChoice | None = None,
    reporter: Reporter | None = None,
) -> RunFolder:
    """Train probes anew on the states of each checkpoint, and rank the token with which the base begins.

    What was read before is not read again.

    Args:
        base: the unedited model: its answers label the prompts.
        tuned: what is read beside it, a model of its shape with random weights, and `never`.
        instances: their prompts, by category.
        judge: of the base's answers.
        out: folder for `tables`, `figures` and `manifest.json`; None for one that goes with what is returned.
        never: a model that never learnt the behaviour, named `never`.
        behaviour: what the judge judges, and the instances are of.
        max_new_tokens: longest answer of the base.
        seed: of folds, shuffles, random weights and intervals.
        truncate: cut prompts that exceed the context from the left, or raise.
        chat: which chat format all of them are read in, see `one_format`.

    Returns:
        The folder, with the table `decodability`.

    Raises:
        InputError: for checkpoints that cannot be compared.
    """
    beside = [] if never is None else [never]
    base, others = in_one_format(base, [*tuned, *beside], chat)
    tuned, never = others[: len(tuned)], others[-1] if beside else None
    work = Workspace(base, tuned, out=out, never=never, of="decode", purpose="test", reporter=reporter)
    RunFolder.check_free(work.folder, ["decodability"])
    if RANDOM in (candidate.name for candidate in (base, *others)):
        raise InputError(f"`{RANDOM}` is the model of random weights; give the checkpoint another name")
    prompts = [instance.prompt for instance in instances]
    work.check(prompts, truncate=truncate)
    with work.held():
        asking = [max_new_tokens, seed, truncate]
        data = [fingerprint_of_instances(instances), work.identify(base), fingerprint_of_judge(judge), asking]
        key = [made_by("mechinterp.audit.decodability", "mechinterp.audit.evidence.preparing"), data]
        asked: list[Asked] = []

        def ask() -> Asked:
            of_base = work.open(base)
            work.reporter.note("the base's own answers")
            settings = ComparisonSettings(max_new_tokens=max_new_tokens)
            unsafe = judged_answers(of_base, prompts, judge, settings, truncate=truncate).unsafe.bool()
            begun = continue_greedily(of_base, prompts, max_new_tokens=1, truncate=truncate, quiet=True)
            return Asked.of(instances, unsafe, begun, seed=seed)

        def make(name: str) -> Decoded:
            if not asked:
                asked.append(ask())
            work.reporter.note(f"reading {name}")
            random = name == RANDOM
            checkpoint = with_random_weights(work.open(base), seed=seed) if random else work.open(named[name])
            return decode(name, checkpoint, asked[0], truncate=truncate)

        named = {candidate.name: candidate for candidate in (base, *others)}
        found = []
        for name in (base.name, RANDOM, *(candidate.name for candidate in others)):
            own = [key, name if name == RANDOM else work.identify(named[name])]
            kept = work.store.keep("decodability", own, load=Decoded.load, make=partial(make, name))
            found.append(kept.named(name))
        work.close()
        config = {
            "checkpoints": {candidate.name: candidate.source for candidate in (base, *others)},
            "judge": judge.name,
            "max_new_tokens": max_new_tokens,
            "truncate": truncate,
            "chat": described(base.chat),
            **behaviour.wording.config,
        }
        table = Decoded.together(found)
        table["reason"] = table["reason"].map(behaviour.wording.worded)
        return work.publish({"decodability": table}, config, seed=seed, versions=versions())
