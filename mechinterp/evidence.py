"""Evidence: what is recorded of the base and of every tuned checkpoint, before anything is compared.

`prepare_baseline` asks the base for its answers, finds the directions, records it and tries steering; `gather_evidence`
records one tuned checkpoint. Both results are small, can save and load themselves, and hold all that `comparison`
needs, so that models need not be in memory together and nothing is recorded twice.

The text is fixed: every checkpoint reads the same tokens, so that a difference is the model's. Only where it is asked
for, each reads its own greedy tokens (`on_policy`) as well; that is another place with a name of its own, because
there the text differs too and a change has no one cause.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch import Tensor

from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.directions import find_directions
from mechinterp.errors import InputError
from mechinterp.evaluation.defense import score_responses
from mechinterp.evaluation.judges import Judge
from mechinterp.files import replacing, write_json
from mechinterp.measures.decomposition import readout
from mechinterp.measures.probe import ToxicProbe
from mechinterp.measures.statistics import seeded_order
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.generation import continue_greedily, generate
from mechinterp.models.interventions import SteeredAt, steer
from mechinterp.models.middle_stream import has_middle_stream
from mechinterp.models.names import h_down, h_mid, resid_post
from mechinterp.models.recording import Recording, record_positions
from mechinterp.models.tokens import Encoded, Position, generated_tokens
from mechinterp.provenance import digest

Text = Literal["fixed", "on_policy"]


@dataclass(frozen=True)
class Place:
    """Where writes are measured.

    Attributes:
        name: in tables.
        position: the token positions recorded there.
        steered_at: where steering is tried, to see whether a direction is in play there.
        text: `fixed`, the same tokens for every checkpoint, or `on_policy`, each one's own.
    """

    name: str
    position: Position
    steered_at: SteeredAt
    text: Text = "fixed"


PLACES = (Place("prompt_last", "last", "prompt_last"), Place("response", "response", "response"))
"""Where writes are always measured."""

Note = Callable[[str], None]


class ComparisonSettings(BaseModel):
    """How a comparison is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_new_tokens: int = Field(
        32, ge=1, description="of the answers that decide which prompts the base answers unsafely"
    )
    steering_inputs: int = Field(60, ge=1, description="prompts on which steering is tried")
    steering_scale: float = Field(
        0.5,
        gt=0,
        description="length of the steering vector, in mean lengths of the residual stream where it is added",
    )
    middle_inputs: int = Field(30, ge=2, description="inputs of the middle-stream figure")
    top_neurons: int = Field(10, ge=0, description="neurons listed per method, direction and position")
    generated: int = Field(0, ge=0, description="greedy tokens after the prompt that are measured too; 0 for none")
    text: Literal["fixed", "on_policy", "both"] = Field(
        "fixed", description="whose greedy tokens those are: the base's for all, each checkpoint's own, or both, apart"
    )

    @property
    def places(self) -> tuple[Place, ...]:
        """Where writes are measured."""
        if not self.generated:
            return PLACES
        position = f"generated:{self.generated}"
        both: tuple[Text, ...] = ("fixed", "on_policy")
        texts = both if self.text == "both" else (self.text,)
        names = {"fixed": position, "on_policy": f"{position}:on_policy"}
        return (*PLACES, *(Place(names[text], position, "response", text) for text in texts))


@dataclass(frozen=True)
class Inputs:
    """What every checkpoint is recorded on.

    Attributes:
        prompts: adversarial prompts.
        responses: the unsafe response to each, teacher-forced after it at position `response`.
        block: the toxic layer, from 0.
        directions: name -> direction, [d_model].
        middle: indices of the inputs whose middle stream is kept.
        seed: of every random choice.
        places: where writes are measured.
        continuations: the prompts with the base's own greedy tokens, where a place wants them.
        truncate: whether prompts that exceed the context are cut from the left, or an error.
    """

    prompts: tuple[str, ...]
    responses: tuple[str, ...]
    block: int
    directions: Mapping[str, Float[Tensor, " d_model"]]
    middle: tuple[int, ...]
    seed: int
    places: tuple[Place, ...] = PLACES
    continuations: tuple[Encoded, ...] = ()
    truncate: bool = False

    def labels(self) -> dict[str, Any]:
        """All but the directions' values, JSON-serialisable."""
        return {
            **{part.name: getattr(self, part.name) for part in fields(self)},
            "directions": list(self.directions),  # their order
            "places": [vars(place) for place in self.places],
            "continuations": [[list(text.ids), text.prompt_length] for text in self.continuations],
        }

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all of it."""
        return digest([self.labels(), [direction.tolist() for direction in self.directions.values()]])


@dataclass(frozen=True)
class Evidence:
    """What was recorded of one checkpoint.

    Attributes:
        checkpoint, fingerprint: its name and weights.
        recordings: by place: means of h_down at every block; at `prompt_last` every input's h_down at the toxic layer;
            of the base every input's write along every direction.
        readouts: by direction, g of every block, float64 [block, d_mlp].
        biases: by direction, output bias of every block along it, float64 [block].
        values: W_V of the toxic layer, [d_mlp, d_model].
        middle: h_mid and h_down of some inputs at the toxic layer; empty where blocks have no middle stream.
    """

    checkpoint: str
    fingerprint: str
    recordings: Mapping[str, Recording]
    readouts: Mapping[str, Float[Tensor, "block d_mlp"]]
    biases: Mapping[str, Float[Tensor, " block"]]
    values: Float[Tensor, "d_mlp d_model"]
    middle: Mapping[str, Float[Tensor, "input d"]]

    def save(self, folder: Path) -> Path:
        """Write into a folder, whole or not at all."""
        with replacing(folder) as partial:
            partial.mkdir()
            for place, recording in self.recordings.items():
                recording.save(partial / _file(place))
            tensors = {"values": self.values}
            for kind in ("readouts", "biases", "middle"):
                tensors |= {f"{kind}/{name}": value for name, value in getattr(self, kind).items()}
            save_file({name: value.contiguous() for name, value in tensors.items()}, partial / "weights.safetensors")
            labels = {"checkpoint": self.checkpoint, "fingerprint": self.fingerprint, "places": list(self.recordings)}
            write_json(partial / "evidence.json", labels)
        return folder

    @classmethod
    def load(cls, folder: Path) -> Evidence:
        """Read back what `save` wrote."""
        labels = json.loads((folder / "evidence.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "weights.safetensors")
        return cls(
            recordings={place: Recording.load(folder / _file(place)) for place in labels.pop("places")},
            values=tensors["values"],
            readouts=_part(tensors, "readouts/"),
            biases=_part(tensors, "biases/"),
            middle=_part(tensors, "middle/"),
            **labels,
        )


@dataclass(frozen=True)
class Steering:
    """Answers with a direction subtracted, left alone and added: whether each is not unsafe, on the same prompts.

    Attributes:
        alpha: length of the vector.
        minus, none, plus: outcomes, [input].
    """

    alpha: float
    minus: Bool[Tensor, " input"]
    none: Bool[Tensor, " input"]
    plus: Bool[Tensor, " input"]


@dataclass(frozen=True)
class Baseline:
    """The base prepared for comparison.

    Attributes:
        inputs: what to record the others on.
        evidence: the base's own.
        unsafe: whether the base answers each prompt unsafely.
        checked: the inputs on which directions are checked (those they were not fitted on).
        steering: by (direction, where it is steered).
    """

    inputs: Inputs
    evidence: Evidence
    unsafe: Bool[Tensor, " input"]
    checked: Bool[Tensor, " input"]
    steering: Mapping[tuple[str, str], Steering]

    def save(self, folder: Path) -> Path:
        """Write into a folder, whole or not at all."""
        with replacing(folder) as partial:
            partial.mkdir()
            self.evidence.save(partial / "evidence")
            tensors = {"unsafe": self.unsafe, "checked": self.checked}
            tensors |= {f"direction/{name}": value for name, value in self.inputs.directions.items()}
            for (name, at), steering in self.steering.items():
                for kind in ("minus", "none", "plus"):
                    tensors[f"steering/{name}/{at}/{kind}"] = getattr(steering, kind)
            save_file({name: value.contiguous() for name, value in tensors.items()}, partial / "baseline.safetensors")
            labels = self.inputs.labels()
            labels["alpha"] = [[*key, steering.alpha] for key, steering in self.steering.items()]
            write_json(partial / "baseline.json", labels)
        return folder

    @classmethod
    def load(cls, folder: Path) -> Baseline:
        """Read back what `save` wrote."""
        labels = json.loads((folder / "baseline.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "baseline.safetensors")
        steering = {}
        for name, at, alpha in labels.pop("alpha"):
            outcomes = _part(tensors, f"steering/{name}/{at}/")
            steering[name, at] = Steering(alpha=alpha, **outcomes)
        directions = {name: tensors[f"direction/{name}"] for name in labels.pop("directions")}
        lists: dict[str, Any] = {key: tuple(labels.pop(key)) for key in ("prompts", "responses", "middle")}
        lists["places"] = tuple(Place(**place) for place in labels.pop("places"))
        lists["continuations"] = tuple(Encoded.of(ids, length) for ids, length in labels.pop("continuations"))
        return cls(
            inputs=Inputs(directions=directions, **lists, **labels),
            evidence=Evidence.load(folder / "evidence"),
            unsafe=tensors["unsafe"],
            checked=tensors["checked"],
            steering=steering,
        )


def prepare_baseline(
    base: Checkpoint,
    instances: Sequence[SafeEditInstance],
    probe: ToxicProbe,
    judge: Judge,
    *,
    block: int,
    seed: int,
    fitting: Sequence[SafeEditInstance] | None = None,
    settings: ComparisonSettings | None = None,
    truncate: bool = False,
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
        fitting: instances for the `answer` and `class_means` directions; by default a seeded half of `instances`, and
            the directions are then checked on the other half only.
        settings: see `ComparisonSettings`.
        truncate: cut prompts that exceed the context from the left instead of raising.
        note: told what is being done.

    Raises:
        InputError: for no instances, a block out of range, or a probe that belongs to other weights.
    """
    settings = settings or ComparisonSettings()
    base.names.check_block(block)
    base.names.value_parameter(block)  # refuses blocks without a single value matrix before anything long
    if not instances:
        raise InputError("there are no instances to compare on")
    probe.check(base.fingerprint, base.source)
    prompts = [instance.adversarial_prompt for instance in instances]
    answer = partial(answers_unsafely, base, judge=judge, settings=settings, truncate=truncate)
    note("the base's own answers")
    unsafe = answer(prompts)
    checked = torch.ones(len(prompts), dtype=torch.bool)
    if fitting is None:
        half = seeded_order(len(prompts), seed)[: (len(prompts) + 1) // 2]
        checked[half] = False
        fitting, fitting_unsafe = [instances[i] for i in half], unsafe[half]
    else:
        fitting_unsafe = answer([i.adversarial_prompt for i in fitting])
    places = settings.places
    continuations: tuple[Encoded, ...] = ()
    if settings.generated:
        note("the base's own greedy tokens")
        continuations = tuple(continue_greedily(base, prompts, max_new_tokens=settings.generated, truncate=truncate))
    inputs = Inputs(
        prompts=tuple(prompts),
        responses=tuple(instance.unsafe_generation for instance in instances),
        block=block,
        directions=find_directions(base, probe, fitting, fitting_unsafe, truncate=truncate),
        middle=_some(len(prompts), settings.middle_inputs, seed),
        seed=seed,
        places=places,
        continuations=continuations,
        truncate=truncate,
    )
    note("recording the base")
    evidence = gather_evidence(base, inputs, is_base=True)
    candidates = checked.nonzero().flatten()
    chosen = candidates[list(_some(len(candidates), settings.steering_inputs, seed))].tolist()
    lengths = _stream_lengths(base, inputs, chosen)
    steering: dict[tuple[str, str], Steering] = {}
    for at in dict.fromkeys(place.steered_at for place in places):
        alpha = settings.steering_scale * lengths[at]
        for name, direction in inputs.directions.items():
            note(f"steering the base along {name} at {at}")
            outcomes = []
            for sign in (-1, 1):
                with steer(base, direction, block=block, alpha=sign * alpha, at=at):
                    outcomes.append(~answer([prompts[i] for i in chosen]))
            steering[name, at] = Steering(alpha, minus=outcomes[0], none=~unsafe[chosen], plus=outcomes[1])
    return Baseline(inputs, evidence, unsafe, checked, steering)


def gather_evidence(checkpoint: Checkpoint, inputs: Inputs, *, is_base: bool = False) -> Evidence:
    """Record one checkpoint on the inputs of a comparison.

    Args:
        is_base: also keep every input's write along every direction; the base's own greedy tokens are the fixed ones.

    Raises:
        InputError: if activations are not finite.
    """
    blocks = range(checkpoint.n_blocks)
    units = {name: direction.double() / direction.double().norm() for name, direction in inputs.directions.items()}
    readouts = {
        name: torch.stack([readout(checkpoint.value_matrix(b), unit).cpu() for b in blocks])
        for name, unit in units.items()
    }
    biases = {
        name: torch.stack([checkpoint.value_bias(b).double().cpu() @ unit for b in blocks])
        for name, unit in units.items()
    }
    hooks, at_region = [h_down(b) for b in blocks], [h_down(inputs.block)]
    if has_middle_stream(checkpoint):
        at_region.append(h_mid(inputs.block))
    writes = {hook: torch.stack([readouts[name][b] for name in units], dim=1) for b, hook in enumerate(hooks)}
    cut = inputs.truncate
    read = partial(record_positions, checkpoint, inputs.prompts, truncate=cut, project=writes if is_base else None)
    by_place = {(place.position, place.text): place.name for place in inputs.places}
    found = read(
        list(dict.fromkeys([*hooks, *at_region])),
        [place.position for place in PLACES],
        responses=inputs.responses,
        keep={"last": at_region},
    )
    kept = found["last"].inputs
    middle = {hook: kept[hook][list(inputs.middle)] for hook in at_region} if len(at_region) > 1 else {}
    recordings = {by_place[position, "fixed"]: _only(recording, hooks) for position, recording in found.items()}
    recordings["prompt_last"] = replace(recordings["prompt_last"], inputs={at_region[0]: kept[at_region[0]]})
    for place in inputs.places[len(PLACES) :]:
        continuations: Sequence[Encoded] = inputs.continuations
        if place.text == "on_policy" and is_base:  # its own text is the fixed one
            if fixed := by_place.get((place.position, "fixed")):
                recordings[place.name] = recordings[fixed]
                continue
        elif place.text == "on_policy":
            wanted = generated_tokens(place.position) or 0
            continuations = continue_greedily(checkpoint, inputs.prompts, max_new_tokens=wanted, truncate=cut)
        recordings[place.name] = read(hooks, [place.position], continuations=continuations)[place.position]
    for recording in recordings.values():
        if bad := {hook: count for hook, count in recording.non_finite.items() if count}:
            raise InputError(f"{checkpoint.source}: non-finite activations {bad}; use a wider type (--dtype float32)")
    return Evidence(
        checkpoint=checkpoint.name,
        fingerprint=checkpoint.fingerprint,
        recordings=recordings,
        readouts=readouts,
        biases=biases,
        values=checkpoint.value_matrix(inputs.block).cpu().clone(memory_format=torch.contiguous_format),  # as loaded
        middle=middle,
    )


def _only(recording: Recording, hooks: Sequence[str]) -> Recording:
    """The means of some hook points, without the values of single inputs."""
    return replace(
        recording,
        groups={hook: recording.groups[hook] for hook in hooks},
        non_finite={hook: recording.non_finite[hook] for hook in hooks},
        inputs={},
    )


def answers_unsafely(
    checkpoint: Checkpoint,
    prompts: Sequence[str],
    judge: Judge,
    settings: ComparisonSettings,
    *,
    truncate: bool = False,
) -> Bool[Tensor, " input"]:
    """Whether the checkpoint answers each prompt unsafely; an empty answer is neutral and counts as not unsafe."""
    answers = generate(checkpoint, prompts, max_new_tokens=settings.max_new_tokens, truncate=truncate)
    return torch.tensor([score is not None and score <= 0.5 for score in score_responses(judge, answers)])


def _stream_lengths(base: Checkpoint, inputs: Inputs, chosen: Sequence[int]) -> dict[str, float]:
    """Mean length of the residual stream after the toxic layer, by place."""
    hook = resid_post(inputs.block)
    prompts, responses = ([texts[i] for i in chosen] for texts in (inputs.prompts, inputs.responses))
    positions = [place.position for place in PLACES]
    found = record_positions(
        base, prompts, [hook], positions, responses=responses, keep=[hook], truncate=inputs.truncate
    )
    return {place.name: float(found[place.position].inputs[hook].norm(dim=1).mean()) for place in PLACES}


def _some(n: int, wanted: int, seed: int) -> tuple[int, ...]:
    """A seeded choice of inputs, in their order."""
    return tuple(sorted(seeded_order(n, seed)[:wanted]))


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _file(place: str) -> str:
    return f"{place.replace(':', '_')}.safetensors"
