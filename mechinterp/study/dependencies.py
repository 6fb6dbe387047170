"""The stages of a study in their order, and what each depends on: files, settings, code.

A stage is redone where the content of a file that it reads has changed, a setting that it uses, the code that it runs
(its module in `study.stages`, and what that imports) or a library's version. What is the user's own (model, judge, data
files) counts by its content, wherever it lies; a model or judge from the hub counts by its id. The device counts as it
is written: numbers depend on it, slightly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from mechinterp import comparison
from mechinterp.calibration.table import CERTIFICATE
from mechinterp.errors import InputError
from mechinterp.models.sources import source_files
from mechinterp.provenance import library_versions
from mechinterp.reporting import Reporter, Silent
from mechinterp.stages import Stage
from mechinterp.study.run import Run
from mechinterp.study.stages import (
    compare,
    data,
    defend,
    dinm,
    dpo,
    locate,
    organism,
    probe,
    record,
    relapse,
    report,
    sft,
    vanilla,
)

MAKERS: Mapping[str, Callable[[Run, Reporter], None]] = {
    "data": data.make,
    "vanilla": vanilla.make,
    "organism": organism.make,
    "sft": sft.make,
    "dpo": dpo.make,
    "probe": probe.make,
    "locate": locate.make,
    "dinm": dinm.make,
    "record": record.make,
    "compare": compare.make,
    "defend": defend.make,
    "relapse": relapse.make,
    "report": report.make,
}
"""What each stage runs."""

TEMPLATE = Path(__file__).parents[1] / "templates" / "report.html.j2"

DATA = (
    *("train.json", "validation.json", "test.json", "comments.csv"),
    *("knowledge.json", "benign.jsonl", "responses.json"),
)


@dataclass(frozen=True)
class Given:
    """Something that several stages read, as part of what each depends on.

    Attributes:
        needs: files of the run.
        reads: files of the user's own.
        settings: what else decides it.
    """

    needs: tuple[str, ...] = ()
    reads: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    settings: Any = None


def vanilla_of(run: Run) -> Given:
    """The vanilla model: the run's, the user's, or one from the hub."""
    model = run.config.model
    if model is None:
        return Given(needs=("checkpoints/vanilla",))
    if not Path(model).exists():
        return Given(settings=model)
    try:
        return Given(reads={"model": source_files(model)})
    except InputError:  # not whole; whoever opens it says why
        return Given(reads={"model": (Path(model),)})


def judge_of(run: Run) -> Given:
    """The judge: fitted on the run's responses with its seed, the user's, or one from the hub."""
    judge = run.config.judge
    if judge is None:
        return Given(needs=("data/responses.json",), settings=run.seed)
    return Given(reads={"judge": (Path(judge),)}) if Path(judge).exists() else Given(settings=judge)


def stages_of(run: Run, reporter: Reporter) -> list[Stage]:
    """The stages of a run, each after all that it needs."""
    config, seed, base, judge = run.config, run.seed, vanilla_of(run), judge_of(run)
    loading = [config.dtype, config.device, config.device_map]
    asking = [*loading, config.truncate]
    choosing = [config.edit_instances, seed]
    locating = [config.distance, config.reuse_first_layer]
    optional = [f"tables/{name}.csv" for name in comparison.OPTIONAL_TABLES]
    compared = [f"tables/{name}.csv" for name in (*comparison.TABLES, "edits")]

    def stage(
        name: str,
        *given: Given,
        makes: list[str],
        needs: str = "",
        settings: Any = None,
        reads: Any = None,
        **more: Any,
    ) -> Stage:
        return Stage(
            name,
            partial(MAKERS[name], run, reporter),
            makes,
            needs=[*needs.split(), *(path for one in given for path in one.needs)],
            settings={
                "own": settings,
                "given": [one.settings for one in given],
                "versions": library_versions(),
            },
            code=[MAKERS[name].__module__],
            reads={**(reads or {}), **{what: files for one in given for what, files in one.reads.items()}},
            **more,
        )

    def dump(model: Any, **options: Any) -> Any:
        return model.model_dump(mode="json", **options)

    found = [
        stage(
            "data",
            makes=[f"data/{name}" for name in DATA],
            settings=_settings_of_data(run),
            reads=_files_of_data(run),
            rehearse=lambda folder: data.make(Run(config, seed, folder), Silent()),
        ),
        stage("vanilla", makes=["checkpoints/vanilla"], settings=[dump(config.corpus), dump(config.organism), seed]),
        stage(
            "organism",
            *(base, judge),
            makes=["tables/judge.csv", "tables/organism.csv"],
            needs="data/test.json data/knowledge.json",
            settings=[asking, config.max_new_tokens, config.judge],  # the table names it
        ),
        stage(
            "sft",
            base,
            makes=["checkpoints/sft", "tables/training_sft.csv"],
            needs="data/train.json",
            settings=[loading, dump(config.sft), seed],
        ),
        stage(
            "dpo",
            makes=["checkpoints/dpo", "tables/training_dpo.csv"],
            needs="data/train.json checkpoints/sft",
            settings=[loading, dump(config.dpo), seed],
        ),
        stage(
            "probe",
            base,
            makes=["probe.safetensors", "tables/probe.csv", "tables/probe_roc.csv"],
            needs="data/comments.csv",
            settings=[asking, config.final_norm, seed],
        ),
        stage(
            "locate",
            base,
            makes=["tables/toxic_layer.csv", "tables/located.csv"],
            needs="data/test.json",
            settings=asking,
        ),
        stage(
            "dinm",
            base,
            makes=["edits"],
            needs="data/test.json tables/located.csv",
            settings=[loading, dump(config.dinm), locating, choosing],
        ),
        stage(
            "record",
            *(base, judge),
            makes=["evidence"],
            needs="data/test.json data/validation.json checkpoints/sft checkpoints/dpo edits probe.safetensors "
            "tables/located.csv",
            settings=[asking, dump(config.comparison, exclude={"top_neurons"}), locating, seed],
        ),
        stage(
            "compare",
            base,
            makes=compared,
            may_make=optional,
            needs="evidence edits probe.safetensors",
            settings=[loading, config.comparison.top_neurons, seed],
        ),
        stage(
            "defend",
            *(base, judge),
            makes=["tables/defense.csv", "responses"],
            needs="data/test.json data/knowledge.json checkpoints/sft checkpoints/dpo edits",
            settings=[asking, config.max_new_tokens, config.knowledge_questions, config.dinm.suffix, choosing],
        ),
        stage(
            "relapse",
            *(base, judge),
            makes=["tables/relapse.csv", "tables/relapse_verdict.csv", "relapse"],
            needs="checkpoints/sft checkpoints/dpo edits evidence tables/verdict.csv",
            settings=[loading, dump(config.relapse), config.comparison.max_new_tokens],
        ),
        stage(
            "report",
            makes=["figures", "report.html"],
            needs=" ".join(
                [
                    *(f"tables/{name}.csv" for name in ("judge", "organism", "probe", "probe_roc", "toxic_layer")),
                    *compared,
                    *(f"tables/{name}.csv" for name in ("defense", "relapse", "relapse_verdict")),
                ]
            ),
            may_need=[*optional, "tables/calibration.csv"],
            settings=[dump(config), seed],  # the page lists them
            # the page gives the instrument's rates
            reads={path.stem: (path,) for path in (TEMPLATE, CERTIFICATE) if path.is_file()},
        ),
    ]
    return [one for one in found if one.name != "vanilla" or config.model is None]


def needed(stages: list[Stage], wanted: set[str]) -> set[str]:
    """The names of stages that are wanted, and of all that make what those need."""
    for stage in reversed(stages):
        if stage.name in wanted:
            wanted = wanted | {one.name for one in stages if {*one.makes, *one.may_make} & {*stage.needs}}
    return wanted


def _settings_of_data(run: Run) -> Any:
    """What decides the data besides the user's files; the seed only where something is drawn."""
    own = run.config.data
    if own is None:
        return [run.config.corpus.model_dump(mode="json"), run.seed]
    files = [name for name, value in vars(own).items() if isinstance(value, Path)]
    return [own.model_dump(mode="json", exclude=set(files)), None if own.max_comments is None else run.seed]


def _files_of_data(run: Run) -> dict[str, tuple[Path, ...]]:
    own = run.config.data
    return {} if own is None else {name: (path,) for name, path in vars(own).items() if isinstance(path, Path)}
