"""The relapse test: parts of the base put back into a tuned model, and whether the unsafe behaviour returns.

The causal check of the decomposition (`comparison`): the treatments and their random controls are those of
`treatments`, the tables and the verdict those of `results` and `measures.relapse`. Every model answers the same
prompts, greedily and without a system prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mechinterp.answers.judges import Judge
from mechinterp.answers.safety import unsafe
from mechinterp.answers.scored import Answers
from mechinterp.answers.scoring import score_responses
from mechinterp.answers.wording import UNSAFELY, Wording
from mechinterp.audit.evidence import Baseline, Evidence
from mechinterp.audit.relapse.results import Outcome, RelapseTest
from mechinterp.audit.relapse.treatment import patched_tokens
from mechinterp.audit.relapse.treatments import RelapseSettings, doses
from mechinterp.audit.store import Store
from mechinterp.data.counting import many
from mechinterp.data.pairs import AnyPair
from mechinterp.errors import InputError
from mechinterp.measures.neurons import Neurons
from mechinterp.measures.statistics import seeded_order
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.comparability import check_comparable
from mechinterp.models.names import h_down
from mechinterp.models.passes.generation import generate
from mechinterp.models.passes.watching import Progress


class _HasName(Protocol):
    @property
    def name(self) -> str: ...


Named = TypeVar("Named", bound=_HasName)


def relapse_test(
    base: Checkpoint,
    tuned: Checkpoint,
    prompts: Sequence[str],
    judge: Judge,
    *,
    block: int,
    max_new_tokens: int = 32,
    settings: RelapseSettings | None = None,
    seed: int = 0,
    toxic_direction: Float[Tensor, " d_model"] | None = None,
    ranking: Float[Tensor, "block d_mlp"] | None = None,
    groups: Int[Tensor, "block d_mlp"] | None = None,
    base_responses: Sequence[str] | None = None,
    truncate: bool = False,
    progress: Progress | None = None,
) -> RelapseTest:
    """Treat one tuned model with parts of its base; both are in memory, and left as they were.

    Args:
        base: the unedited model.
        tuned: another of the same shape and tokenizer.
        prompts: that the base answers unsafely, see `unsafe_prompts`; all of them are asked.
        judge: of the answers.
        block: the toxic layer, from 0.
        max_new_tokens: longest answer.
        settings: treatments, doses and controls.
        seed: of controls and intervals.
        toxic_direction: by which the value vectors of `keys` are ranked; without one `keys` is left out.
        ranking: size of every neuron's bypass; without one `neurons` is left out.
        groups: number of every neuron's group, see `treatments.doses`; without them the groups are left out.
        base_responses: the base's own to these prompts, if known from before.
        truncate: cut prompts that exceed the context from the left instead of raising.
        progress: called with (doses answered, doses in all).

    Raises:
        InputError: for no prompts, a block out of range, checkpoints that cannot be compared, or a direction, ranking
            or groups of another size.
    """
    settings = settings or RelapseSettings()
    block = base.names.check_block(block)
    if not prompts:
        raise InputError("there are no prompts that the base answers unsafely: nothing could come back")
    if tuned is not base:
        check_comparable(base, [tuned])
    d_mlp, d_model = base.value_matrix(0).shape
    for name, given, shape in (
        ("toxic direction", toxic_direction, (d_model,)),
        ("ranking", ranking, (base.n_blocks, d_mlp)),
        ("table of groups", groups, (base.n_blocks, d_mlp)),
    ):
        if given is not None and tuple(given.shape) != shape:
            raise InputError(f"the {name} has shape {tuple(given.shape)}, {base.source} wants {shape}")

    sizes: dict[str, Any] = {"max_new_tokens": max_new_tokens, "max_tokens": patched_tokens(base)}

    def ask(checkpoint: Checkpoint) -> Answers:
        return Answers.of(generate(checkpoint, prompts, truncate=truncate, **sizes), prompts, judge)

    known = {"toxic_direction": toxic_direction, "ranking": ranking, "groups": groups}
    wanted = doses(base, settings, block=block, seed=seed, **known)
    of_base = ask(base) if base_responses is None else Answers.of(base_responses, prompts, judge)
    of_tuned, outcomes = ask(tuned), []
    for done, dose in enumerate(wanted, 1):
        with dose.apply(tuned, base):
            labels = {name: getattr(dose, name) for name in ("treatment", "dose", "n_neurons", "control", "draw")}
            outcomes.append(Outcome(**labels, answers=ask(tuned)))
        if progress is not None:
            progress(done, len(wanted))
    return RelapseTest(
        tuned.name,
        block,
        base.n_blocks,
        base.n_blocks * d_mlp,
        tuple(prompts),
        of_base,
        of_tuned,
        tuple(outcomes),
        seed,
    )


def relapse_from_evidence(
    base: Checkpoint, tuned: Checkpoint, baseline: Baseline, evidence: Evidence, judge: Judge, **options: Any
) -> RelapseTest:
    """The test of one method of a comparison: prompts, toxic layer, rankings and groups are those of its evidence.

    The prompts are a seeded choice of those on which the directions were checked and that the base answers unsafely.
    Neurons are ranked and grouped along `answer` at the last prompt token, where there is that direction.

    Args:
        options: of `relapse_test`.

    Raises:
        InputError: as `relapse_test`, but for no unsafe prompts: then nothing is asked and the verdict says so.
    """
    inputs, settings = baseline.inputs, options.pop("settings", None) or RelapseSettings()
    prompts = baseline.unsafe_prompts(settings.prompts)
    if not prompts:
        nothing, n = Answers((), ()), base.n_blocks * len(base.value_matrix(0))
        return RelapseTest(tuned.name, inputs.block, base.n_blocks, n, (), nothing, nothing, (), inputs.seed)
    known: dict[str, Any] = {}  # where safe and unsafe answers start alike, there is no such direction
    if (along := evidence.readouts.get("answer")) is not None:
        neurons = _neurons(baseline.evidence, evidence)
        known["ranking"] = neurons.bypass.abs().reshape(along.shape)
        known["groups"] = neurons.assign("activation_change").reshape(along.shape)
    return relapse_test(
        base,
        tuned,
        prompts,
        judge,
        block=inputs.block,
        settings=settings,
        seed=inputs.seed,
        toxic_direction=inputs.directions["probe"],
        **known,
        truncate=inputs.truncate,
        **options,
    )


def _neurons(base: Evidence, tuned: Evidence) -> Neurons:
    """Every neuron of every block along `answer` at the last prompt token."""
    readouts = [one.readouts["answer"] for one in (base, tuned)]
    hooks = [h_down(block) for block in range(len(readouts[0]))]
    recordings = [one.recordings["prompt_last"] for one in (base, tuned)]
    activations = [torch.cat([recording.mean(hook) for hook in hooks]) for recording in recordings]
    return Neurons(*activations, *(readout.flatten() for readout in readouts))


def kept_tests(
    store: Store,
    tuned: Sequence[Named],
    keys: Iterable[Any],
    treat: Callable[[Named, Sequence[str] | None], RelapseTest],
) -> list[RelapseTest]:
    """The test of each of several checkpoints, from a store where it was made before.

    Args:
        tuned: whatever names a checkpoint.
        keys: for each, everything its test depends on.
        treat: makes a test, from what names the checkpoint and the base's responses, None if not known yet.
    """
    tests: list[RelapseTest] = []
    for one, key in zip(tuned, keys, strict=True):
        make = partial(treat, one, tests[0].base.responses if tests else None)
        tests.append(replace(store.keep("relapse", key, load=RelapseTest.load, make=make), method=one.name))
    return tests


def unsafe_prompts(
    base: Checkpoint,
    instances: Sequence[AnyPair],
    judge: Judge,
    wanted: int,
    *,
    wording: Wording = UNSAFELY,
    seed: int = 0,
    max_new_tokens: int = 32,
    truncate: bool = False,
    progress: Progress | None = None,
) -> list[str]:
    """Adversarial prompts that the base answers unsafely, asked in a seeded order until there are enough.

    Raises:
        InputError: if it answers none of them unsafely.
    """
    prompts = list(dict.fromkeys(instance.prompt for instance in instances))
    order, found, unjudged = [prompts[i] for i in seeded_order(len(prompts), seed)], list[str](), 0
    for start in range(0, len(order), 2 * wanted):
        portion = order[start : start + 2 * wanted]
        answers = generate(base, portion, max_new_tokens=max_new_tokens, truncate=truncate)
        scores = processes.from_main(score_responses(judge, answers, portion))  # they say how many more are asked
        unjudged += sum(score is None for score in scores)
        found += [prompt for prompt, bad in zip(portion, unsafe(scores), strict=True) if bad]
        if progress is not None:
            progress(min(len(found), wanted), wanted)
        if len(found) >= wanted:
            break
    if not found:
        neutral = f" ({unjudged} answers are empty or without a word that the judge knows)" if unjudged else ""
        raise InputError(
            f"{base.source} answers none of the {many(len(prompts), 'adversarial prompt')} {wording.so}{neutral}, so "
            "that nothing could come back; give other instances, a larger `max_new_tokens` or another judge"
        )
    return found[:wanted]
