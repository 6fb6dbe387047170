"""The plan of a study: its stages, the files it needs, the memory, disk and time it expects, and what is missing.

No model is built, no weight loaded, nothing written there and the network not used. A stage counts as up to date by
its marker: the run itself hashes what the stage made, and does it again where that has changed. A stage that reads what
an earlier one will make anew is to be done again; should that come out as it was, the run passes over it.

**What refuses a study**: a file that is missing or malformed, a device that is not there, a folder that cannot be
written, weights that do not fit into the device's memory even alone, checkpoints and edits that do not fit on the disk.
**What only warns**: an expected memory above what is free, because it is an order of magnitude.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch

from mechinterp.data.corpus import generate_corpus
from mechinterp.errors import InputError
from mechinterp.methods.training.organism import build_model, train_tokenizer
from mechinterp.models.devices import resolve_device
from mechinterp.models.progress import Silent
from mechinterp.runs.planning.lengths import too_long
from mechinterp.runs.planning.machine import LIBRARIES, Cost, Machine, cost, free_disk, main_memory, writing_problem
from mechinterp.runs.planning.materials import GIB, Materials, Requirement, look_at_files
from mechinterp.runs.planning.sizes import Amounts, Shape
from mechinterp.runs.planning.works import works
from mechinterp.runs.stages import Runner
from mechinterp.runs.study import Study
from mechinterp.runs.study.dependencies import methods_of

State = Literal["up to date", "to be done again", "to be done"]


@dataclass(frozen=True)
class PlannedStage:
    """One stage of a plan.

    Attributes:
        name: of the stage.
        state: whether it is up to date.
        does: in words and counts.
        makes: files and folders below the run folder.
        cost: None where it is not known.
    """

    name: str
    state: State
    does: str
    makes: tuple[str, ...]
    cost: Cost | None


@dataclass(frozen=True)
class Plan:
    """What a study would do, need and cost.

    Attributes:
        stages: in their order.
        requirements: the files, and what is there of them.
        assumptions: what the estimates stand on, in words.
        warnings: what may go wrong.
        problems: everything that keeps the study from running; empty if it can run.
    """

    stages: tuple[PlannedStage, ...]
    requirements: tuple[Requirement, ...]
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """Expected seconds of what is still to be done; None where it is not known."""
        left = [stage.cost.seconds if stage.cost else None for stage in self.stages if stage.state != "up to date"]
        return None if None in left else sum(s for s in left if s is not None)


def missing(study: Study) -> tuple[str, ...]:
    """Everything that keeps a study from running, as far as files, device and folder tell, within seconds.

    A run all of whose stages left a marker is not looked at: whether it is up to date is for its stages to say, and a
    finished run needs no model.
    """
    if all((study.folder / "stages" / f"{stage.name}.json").is_file() for stage in study.stages(Silent())):
        return ()
    materials = look_at_files(study.config)
    return (*materials.problems, *too_long(materials, study.config, methods_of(study)), *_places(study))


def make_plan(study: Study) -> Plan:
    """Plan a study.

    Args:
        study: a config, a seed and a folder, which need not be there.
    """
    config = study.config
    materials = look_at_files(config) if config.model is not None else _embedded(study)
    problems = [*materials.problems, *too_long(materials, config, methods_of(study)), *_places(study)]
    states, amounts = _states(study), Amounts.of(materials, config)
    costs: dict[str, Cost] = {}
    warnings: list[str] = []
    assumptions, shape = [amounts.told], _shape(materials, config.dtype)
    does = works(config, methods_of(study), amounts, shape)
    if shape is None:
        assumptions.append("memory, disk and time are not known before the model's config.json is here")
    else:
        if materials.tokenizer is None:
            assumptions.append(f"{config.model} is not here: its shape is that of its published config")
        machine = _machine(study, shape)
        on_cpu = config.device == "cpu" if machine is None else machine.device.type == "cpu"
        costs = {name: cost(work, shape, machine, on_cpu=on_cpu) for name, work in does.items()}
        assumptions += _sizes(shape, machine)
        needed = {name: costs[name] for name, state in states.items() if state != "up to date"}
        problems += _too_large(study, shape, machine, needed)
        warnings += _tight(shape, machine, needed)
    return Plan(
        stages=tuple(
            PlannedStage(
                stage.name,
                states[stage.name],
                does[stage.name].does,
                tuple(stage.makes),
                costs.get(stage.name),
            )
            for stage in study.stages(Silent())
        ),
        requirements=materials.requirements,
        assumptions=tuple(assumptions),
        warnings=tuple(warnings),
        problems=tuple(problems),
    )


def _embedded(study: Study) -> Materials:
    """Data made in memory, and without weights the organism, or the model that is taught."""
    config = study.config
    found = look_at_files(config)  # it may need a judge
    try:
        corpus = generate_corpus(seed=study.seed, **config.corpus.model_dump())
        skeleton, tokenizer = found.skeleton, found.tokenizer  # of the model that is taught
        if config.teach is None:
            tokenizer = train_tokenizer(corpus, vocab_size=config.organism.vocab_size)
            with torch.device("meta"):
                skeleton = build_model(config.organism, tokenizer, seed=study.seed)
    except ValueError as error:
        problem = f"the organism cannot be made with these settings: {error}"
        return replace(found, requirements=(*found.requirements, Requirement("organism", "", "refused", (problem,))))
    sizes = [f"{len(part):,} {name}" for part, name in ((corpus.train, "training"), (corpus.validation, "validation"))]
    state = f"made here: {', '.join(sizes)} and {len(corpus.test):,} test instances, {len(corpus.comments):,} comments"
    return replace(
        found,
        requirements=(Requirement("data", "embedded", state), *found.requirements),
        skeleton=skeleton,
        tokenizer=tokenizer,
        train=corpus.train,
        validation=corpus.validation,
        test=corpus.test,
        comments=corpus.comments,
        knowledge=sum(question.held_out for question in corpus.knowledge),
    )


def _places(study: Study) -> Iterator[str]:
    """Why the device or the folder cannot be used."""
    try:
        resolve_device(study.config.device)
    except InputError as error:
        yield str(error)
    if problem := writing_problem(study.folder):
        yield problem


def _states(study: Study) -> dict[str, State]:
    runner = Runner(study.folder)
    states: dict[str, State] = {}
    for stage in study.stages(Silent()):
        if runner.foresee(stage):
            states[stage.name] = "up to date"
        else:
            done = (study.folder / "stages" / f"{stage.name}.json").is_file()
            states[stage.name] = "to be done again" if done else "to be done"
    return states


def _shape(materials: Materials, dtype: str) -> Shape | None:
    try:
        return None if materials.skeleton is None else Shape.of(materials.skeleton, dtype)
    except InputError:  # blocks without a value matrix; listed among the problems where the files are there
        return None


def _machine(study: Study, shape: Shape) -> Machine | None:
    try:
        device = resolve_device(study.config.device)
    except InputError:
        return None  # listed among the problems
    return Machine.measure(device, shape.dtype, all_devices=study.config.device_map is not None)


def _sizes(shape: Shape, machine: Machine | None) -> Iterator[str]:
    dtype = str(shape.dtype).removeprefix("torch.")
    yield f"model: {shape.parameters:,} parameters, {shape.weights / GIB:.2f} GiB in {dtype}, {shape.n_blocks} blocks"
    if machine is None:
        yield "time is not known: the device is not here"
        return
    yield (
        f"{machine.device}: {machine.multiplications / 1e12:.2f} Tflop/s in {dtype} and {machine.bandwidth / 1e9:.0f} "
        f"GB/s, measured now; {machine.memory / GIB:.1f} GiB of memory; times are orders of magnitude"
    )


def _too_large(study: Study, shape: Shape, machine: Machine | None, needed: Mapping[str, Cost]) -> Iterator[str]:
    """What cannot fit, whatever the estimate's error: the weights alone, and the files that are sure to be written."""
    if needed and machine is not None and shape.weights > machine.memory:
        yield (
            f"memory: the weights alone take {shape.weights / GIB:.1f} GiB, {machine.device} has "
            f"{machine.memory / GIB:.1f}; choose a narrower `dtype`, a larger device or `device_map: auto`"
        )
    wanted, free = sum(cost.disk for cost in needed.values()), free_disk(study.folder)
    if wanted > free:
        yield (
            f"disk: checkpoints, edits and recordings take {wanted / GIB:.1f} GiB, {study.folder} has "
            f"{free / GIB:.1f} GiB free; choose another folder or fewer `edit_instances`"
        )


def _tight(shape: Shape, machine: Machine | None, needed: Mapping[str, Cost]) -> Iterator[str]:
    if machine is None:
        return
    if tight := {name: cost.memory for name, cost in needed.items() if cost.memory > machine.memory}:
        listed = ", ".join(f"{name} {memory / GIB:.0f} GiB" for name, memory in tight.items())
        yield (
            f"memory: {listed} may not fit into the {machine.memory / GIB:.1f} GiB of {machine.device}; smaller "
            "batches, `lora`, `extra: {gradient_checkpointing: true}`, a narrower `dtype` or `device_map: auto` help"
        )
    if machine.device.type != "cpu" and needed and shape.weights + LIBRARIES > main_memory():
        yield (
            f"memory: a model passes through the main memory on its way to {machine.device}: "
            f"{shape.weights / GIB:.1f} GiB, there are {main_memory() / GIB:.1f}"
        )
