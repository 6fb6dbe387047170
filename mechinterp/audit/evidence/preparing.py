"""Asking, recording and steering the base: what every tuned checkpoint is then compared with."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mechinterp.answers.flags import shares_of
from mechinterp.answers.judges import Judge
from mechinterp.answers.scored import Answers
from mechinterp.audit.directions.of_prompts import PromptDirections
from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.audit.directions.standard import PER_PROMPT, find_directions
from mechinterp.audit.directions.toxic_direction import ToxicDirection
from mechinterp.audit.evidence.inputs import Inputs
from mechinterp.audit.evidence.of_base import SIGNS, Baseline, Steering
from mechinterp.audit.evidence.recording import gather_evidence
from mechinterp.audit.evidence.settings import PLACES, ComparisonSettings
from mechinterp.audit.logit_lens import answer_tokens
from mechinterp.audit.questions import questions_of, shared_by
from mechinterp.audit.top_vectors import find_vectors
from mechinterp.data.conversations import Prompt
from mechinterp.data.counting import many
from mechinterp.data.pairs import AnyPair
from mechinterp.errors import InputError
from mechinterp.measures.splitting import half_of
from mechinterp.measures.statistics import random_directions, seeded_order
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.interventions.contexts import steer
from mechinterp.models.names import resid_post
from mechinterp.models.passes.generation import continue_greedily, generate
from mechinterp.models.passes.lens import LensToken
from mechinterp.models.passes.positions import Span
from mechinterp.models.passes.recording import record_positions
from mechinterp.models.passes.sequences import readings
from mechinterp.models.passes.sinks import Sinks
from mechinterp.models.text.tokens import Encoded

Note = Callable[[str], None]
Steered = Sequence[tuple[Float[Tensor, " d_model"], list[int]]]
"""Directions with the numbers of the prompts that are steered along each."""

_logger = logging.getLogger(__name__)


def prepare_baseline(
    base: Checkpoint,
    instances: Sequence[AnyPair],
    probe: ToxicProbe,
    judge: Judge,
    *,
    block: int,
    seed: int,
    fitting: Sequence[AnyPair] | None = None,
    settings: ComparisonSettings | None = None,
    more: Sequence[ToxicDirection] = (),
    truncate: bool = False,
    without_sinks: bool = False,
    note: Note = lambda _: None,
) -> Baseline:
    """Ask, record and steer the base.

    Args:
        base: the unedited model; left as it was.
        instances: test instances; their adversarial prompts are the inputs, their unsafe responses the forced text.
        probe: trained on the base.
        judge: of the base's answers.
        block: the toxic layer, from 0.
        seed: of every random choice.
        fitting: instances for the `answer` and `class_means` directions; those that share a question or a prompt with
            `instances` are left out, and a warning counts them. By default a seeded half of `instances`, parted by
            question and prompt, and the directions are then checked on the other half only.
        settings: see `ComparisonSettings`.
        more: directions to measure along besides those that every comparison has.
        truncate: cut prompts that exceed the context from the left instead of raising.
        without_sinks: leave the base's sinks out of every mean and length over tokens, see `models.passes.sinks`.
        note: told what is being done.

    Raises:
        InputError: for no instances, instances that all share one question, a block out of range, or a probe that
            belongs to other weights.
    """
    settings = settings or ComparisonSettings()
    base.names.check_block(block)
    base.names.value_parameter(block)  # refuses blocks without a single value matrix before anything long
    probe.check(base.fingerprint, base.source, base.tokenizer_fingerprint)
    for each in more:
        each.check(base.fingerprint, base.source, base.tokenizer_fingerprint)
    if not instances:
        raise InputError("there are no instances to compare on")
    half = fitting_half(instances, seed) if fitting is None else []
    if fitting is not None:
        fitting = _apart_from(instances, fitting)
    prompts = [instance.prompt for instance in instances]
    answer = partial(judged_answers, base, judge=judge, settings=settings, truncate=truncate)
    note("the base's own answers")
    answers = answer(prompts)
    unsafe = answers.unsafe.bool()
    checked = torch.ones(len(prompts), dtype=torch.bool)
    if fitting is None:
        checked[half] = False
        fitting, fitting_unsafe = [instances[i] for i in half], unsafe[half]
    else:
        fitting_unsafe = answer([i.prompt for i in fitting]).unsafe.bool()
    continuations: tuple[Encoded, ...] = ()
    if after := max(settings.generated, settings.first_tokens):
        note("the base's own greedy tokens")
        continuations = tuple(continue_greedily(base, prompts, max_new_tokens=after, truncate=truncate))
    responses = [instance.unsafe for instance in instances]
    sinks = None
    if without_sinks:
        note("the base's sinks")
        positions = [place.position for place in PLACES]
        read = readings(base, prompts, positions, responses=responses, truncate=truncate)
        sinks = Sinks.of(base, [*(one.encoded for one in read), *continuations])
    directions = find_directions(base, probe, fitting, fitting_unsafe, more=more, truncate=truncate)
    note("the base's value vectors")
    inputs = Inputs(
        prompts=tuple(prompts),
        responses=tuple(responses),
        block=block,
        directions=directions,
        middle=_some(len(prompts), settings.middle_inputs, seed),
        seed=seed,
        vectors=find_vectors(base, directions, top=settings.top_vectors, tokens=settings.vector_tokens),
        null_directions=random_directions(base.value_matrix(block), settings.null_draws, seed=seed),
        places=settings.places,
        first_tokens=settings.first_tokens,
        lens_tokens=_lens_tokens(base, fitting, settings.lens_tokens),
        continuations=continuations,
        truncate=truncate,
        sinks=sinks,
        per_prompt=_of_prompts(base, instances, checked.tolist(), settings),
    )
    note("recording the base")
    evidence = gather_evidence(base, inputs, is_base=True)
    steering = _steered(base, inputs, checked, answers, answer, settings, note)
    return Baseline(inputs, evidence, unsafe, checked, steering, torch.tensor(questions_of(instances)), answers)


def _steered(
    base: Checkpoint,
    inputs: Inputs,
    checked: Bool[Tensor, " input"],
    answers: Answers,
    answer: Callable[[Sequence[Prompt]], Answers],
    settings: ComparisonSettings,
    note: Note,
) -> dict[tuple[str, str], Steering]:
    """What the base answers steered along and against each direction, at each place where it is steered.

    Args:
        checked: the prompts of which some are steered: those that no direction was fitted on.
        answers: of all prompts, unsteered.
        answer: asks the base, as it then is.
    """
    candidates = checked.nonzero().flatten()
    chosen = candidates[list(_some(len(candidates), settings.steering_inputs, inputs.seed))].tolist()
    doses = _doses(base, inputs, chosen)
    ways: list[tuple[str, Span, Steered]] = [
        (name, at, [(direction, chosen)])
        for at in dict.fromkeys(place.steered_at for place in inputs.places)
        for name, direction in inputs.directions.items()
    ]
    if (own := inputs.per_prompt) is not None:
        among = [row for row in own.rows if checked[row]]
        some = [among[i] for i in _some(len(among), settings.steering_inputs, inputs.seed)]
        ways.append((PER_PROMPT, "prompt_last", own.alike(some)))
    found: dict[tuple[str, str], Steering] = {}
    for name, at, parts in ways:
        note(f"steering the base along {name} at {at}")
        length, entry_share = doses[at]
        alpha, rows = settings.steering_scale * length, sorted(row for _, some in parts for row in some)
        outcomes, asked = {"none": answers.among(rows)}, [inputs.prompts[i] for i in rows]
        for sign, kind in ((-1, "minus"), (1, "plus")):
            of_row: dict[int, Answers] = {}
            for direction, some in parts:
                with steer(base, direction, block=inputs.block, alpha=sign * alpha, at=at):
                    of_some = answer([inputs.prompts[i] for i in some])
                of_row |= {row: of_some.among([place]) for place, row in enumerate(some)}
            outcomes[kind] = Answers.joined([of_row[row] for row in rows])
        degenerate = {kind: shares_of(outcomes[kind].flags(asked))["degenerate"] for kind in SIGNS}
        safely = {kind: ~each.unsafe.bool() for kind, each in outcomes.items()}
        found[name, at] = Steering(alpha, entry_share, **safely, degenerate=degenerate)
    return found


def _lens_tokens(base: Checkpoint, fitting: Sequence[AnyPair], wanted: int) -> tuple[LensToken, ...]:
    """What the logit lens follows; nothing where unsafe and safe answers start alike."""
    try:
        return answer_tokens(base, fitting, k=wanted) if wanted else ()
    except InputError as nothing:
        _logger.warning("%s", nothing)
        return ()


def _of_prompts(
    base: Checkpoint, instances: Sequence[AnyPair], checked: Sequence[bool], settings: ComparisonSettings
) -> PromptDirections | None:
    """A direction of each prompt's own, where they are asked for.

    Raises:
        InputError: if no prompt has one on which directions are checked.
    """
    if not settings.per_prompt:
        return None
    found = PromptDirections.of(base, instances, settings.per_prompt)
    if not any(checked[row] for row in found.rows):
        raise InputError(
            "no prompt on which directions are checked has one of its own; give more whose answers start otherwise, or "
            "leave `per_prompt` out"
        )
    return found


def fitting_half(instances: Sequence[AnyPair], seed: int) -> list[int]:
    """The numbers of the instances to fit on: a seeded half, parted by question and prompt.

    Raises:
        InputError: if they all share one question.
    """
    half = half_of(questions_of(instances), seed)
    if not half:
        raise InputError(
            f"all {many(len(instances), 'instance')} share one question: directions cannot be fitted on some and "
            "checked on others; give instances of at least two questions"
        )
    return half


def _apart_from(instances: Sequence[AnyPair], fitting: Sequence[AnyPair]) -> list[AnyPair]:
    """The fitting instances that share no question and no prompt with those that directions are checked on."""
    checked = set[str]().union(*(shared_by(instance) for instance in instances))
    apart = [instance for instance in fitting if not shared_by(instance) & checked]
    if not apart:
        raise InputError(
            f"the {many(len(fitting), 'instance')} to fit directions on share their questions with those to check "
            "them on; give others"
        )
    if shared := len(fitting) - len(apart):
        _logger.warning(
            "%d of %d instances to fit directions on share a question with those to check them on, and are left out",
            shared,
            len(fitting),
        )
    return apart


def judged_answers(
    checkpoint: Checkpoint,
    prompts: Sequence[str],
    judge: Judge,
    settings: ComparisonSettings,
    *,
    truncate: bool = False,
) -> Answers:
    """The checkpoint's own answers to prompts; a neutral one counts as not unsafe."""
    answers = generate(checkpoint, prompts, max_new_tokens=settings.max_new_tokens, truncate=truncate)
    return processes.from_main(Answers.of(answers, prompts, judge))  # what is asked of all follows from them


def _doses(base: Checkpoint, inputs: Inputs, chosen: Sequence[int]) -> dict[str, tuple[float, float]]:
    """Mean length of the residual stream after the toxic layer, over tokens and then over inputs, by place.

    Beside it the share that one dimension at one position makes of the squared lengths, mean over inputs.
    """
    hook = resid_post(inputs.block)
    prompts, responses = ([texts[i] for i in chosen] for texts in (inputs.prompts, inputs.responses))
    positions = [place.position for place in PLACES]
    found = record_positions(
        base,
        prompts,
        [hook],
        positions,
        responses=responses,
        lengths=[hook],
        groups=1,
        truncate=inputs.truncate,
        without_sinks=inputs.sinks or False,
    )
    return {
        place.name: (float(of.lengths[hook].mean()), float(of.entry_shares[hook].mean()))
        for place in PLACES
        for of in [found[place.position]]
    }


def _some(n: int, wanted: int, seed: int) -> tuple[int, ...]:
    """A seeded choice of inputs, in their order."""
    return tuple(sorted(seeded_order(n, seed)[:wanted]))
