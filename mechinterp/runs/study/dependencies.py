"""The stages of a study in their order, and what each depends on: files, settings, code.

A stage is redone where the content of a file that it reads has changed, a setting that it uses, the code that it runs
(its module in `runs.study.stages`, and what that imports) or a library's version. What is the user's own (model, judge,
data files) counts by its content, wherever it lies; a model or judge from the hub counts by its id. The device counts
as it is written: numbers depend on it, slightly.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mechinterp.audit.certificate import CERTIFICATE
from mechinterp.audit.evidence import ComparisonSettings
from mechinterp.audit.tables.registry import TABLES, tables_of
from mechinterp.data.storage.provenance import library_versions
from mechinterp.methods.method import Method
from mechinterp.methods.training.teaching import TeachSettings
from mechinterp.models.progress import Reporter, Silent
from mechinterp.runs.config import StudyConfig
from mechinterp.runs.stages import Stage
from mechinterp.runs.study.further import FURTHER, left_out, listed
from mechinterp.runs.study.given import (
    Given,
    chat_of,
    comments_of,
    data_of,
    judge_of,
    never_of,
    untaught_of,
    vanilla_of,
)
from mechinterp.runs.study.made import made_by, methods_of, tuned_in
from mechinterp.runs.study.makers import MAKERS
from mechinterp.runs.study.run import Run
from mechinterp.runs.study.stages import data, treat

TEMPLATES = Path(__file__).parents[2] / "report" / "templates"

DATA = (
    *("train.json", "validation.json", "test.json", "comments.csv"),
    *("knowledge.json", "benign.jsonl", "responses.json"),
)


LOADING = "dtype device device_map"
ASKING = f"{LOADING} truncate"


def stages_of(run: Run, reporter: Reporter) -> list[Stage]:
    """The stages of a run, each after all that it needs."""
    libraries = library_versions()
    base, judge, chat, own_data = vanilla_of(run), judge_of(run), chat_of(run), data_of(run)
    recording = [name for name in ComparisonSettings.model_fields if name != "top_neurons"]
    tables = {name: " ".join(_files(tables_of(name))) for name in MAKERS}
    optional = {name: " ".join(_files(tables_of(name, optional=True))) for name in FURTHER}
    methods, tuned = methods_of(run), tuned_in(run)
    edits = [made_by(method) for method in methods if method.per_instance and method.name in run.config.studied]
    of_edits = _files(edits)
    needed_by_page = [table for table in TABLES.values() if table.reported and not table.optional]
    reported = [table.path for table in needed_by_page if table.stage not in (None, "report")]
    further = [name for stage in ("compare", *FURTHER, "depth") for name in tables_of(stage, optional=True)]
    taught_by = [name for name in TeachSettings.model_fields if run.config.teach and name not in ("base", "asked")]
    teaching = [f"teach.{name}" for name in taught_by]
    page = {path.stem: (path,) for path in (*sorted(TEMPLATES.glob("*.j2")), CERTIFICATE) if path.is_file()}

    def stage(name: str, *given: Given, makes: str, needs: str = "", settings: str = "", **more: Any) -> Stage:
        names = " ".join([settings, *(one.settings for one in given)]).split()
        if name in MAKERS:
            own = [MAKERS[name].__module__, *(module for one in given for module in one.code)]
            more |= {"run": partial(MAKERS[name], run, reporter), "code": own}
        return Stage(
            name,
            makes=makes.split(),
            needs=" ".join([needs, *(one.needs for one in given)]).split(),
            settings={name: setting_of(run, name) for name in names} | {"versions": libraries},
            **{"reads": {what: files for one in given for what, files in one.reads.items()}, **more},
        )

    def stage_of(method: Method) -> Stage:
        read = (method.name, *method.recipe.shares)
        located = "instances" in method.takes
        return stage(
            method.name,
            *([chat] if method.after else [base, chat]),
            run=partial(
                treat.make, run, reporter, method, {name: run.config.settings_of(name) for name in method.reads}
            ),
            code=[treat.__name__, method.recipe.module],
            makes=made_by(method),
            may_make=[] if method.per_instance else [f"tables/training_{method.name}.csv"],
            needs=" ".join(
                [
                    *(["data/train.json"] if "training" in method.takes else []),
                    *([f"checkpoints/{method.after}"] if method.after else []),
                    *(["data/test.json", "tables/located.csv"] if located else []),
                    *(["tables/dinm_rates.csv"] if "dinm" in read and run.config.dinm_rates else []),
                ]
            ),
            settings=" ".join(
                [
                    LOADING,
                    *(name if name in StudyConfig.model_fields else f"methods.{name}" for name in read),
                    *(["distance reuse_first_layer edit_instances"] if located else []),
                    "seed",
                ]
            ),
        )

    by_size = {"topics.json": run.config.corpus.n_topics, "facts.jsonl": run.config.corpus.n_people}
    found = [
        stage(
            "data",
            own_data,
            makes=" ".join(f"data/{name}" for name in DATA),
            may_make=[] if run.config.data else [f"data/{name}" for name, n in by_size.items() if n],
            rehearse=lambda folder: data.make(Run(run.config, run.seed, folder), Silent()),
        ),
        stage("vanilla", makes="checkpoints/vanilla", settings="corpus organism seed"),
        stage(
            "teach",
            *(untaught_of(run), chat),
            makes="checkpoints/vanilla",
            may_make=["tables/training_vanilla.csv"],
            settings=" ".join([LOADING, "corpus seed", *teaching]),
        ),
        stage(
            "never",
            *((untaught_of(run), chat) if run.config.teach else ()),
            makes="checkpoints/never",
            may_make=["tables/training_never.csv"] if run.config.teach else [],
            settings=" ".join(["corpus seed", *([LOADING, *teaching] if run.config.teach else ["organism"])]),
        ),
        stage(
            "organism",
            *(base, judge, chat, *([] if run.config.teach else [never_of(run)])),  # `taught` has a taught model's twin
            makes=tables["organism"],
            needs="data/test.json data/knowledge.json",
            settings=f"{ASKING} max_new_tokens judge",  # the table names it
        ),
        stage(
            "taught",
            *(untaught_of(run), base, judge, chat),
            makes=optional["taught"],
            needs="data/test.json data/knowledge.json checkpoints/never",
            settings=f"{ASKING} max_new_tokens knowledge_questions seed{' teach.asked' if run.config.teach else ''}",
        ),
        *(stage_of(method) for method in methods if "instances" not in method.takes),
        stage(
            "probe",
            *(base, chat),
            makes=f"probe.safetensors {tables['probe']}",
            needs="data/comments.csv",
            settings=f"{ASKING} without_sinks final_norm seed",
        ),
        stage(
            "probes",
            *(base, chat, comments_of(run)),
            makes=f"probe_real.safetensors {optional['probes']}",
            needs="data/comments.csv probe.safetensors",
            settings=f"{ASKING} without_sinks final_norm seed",
        ),
        stage("locate", base, makes=tables["locate"], needs="data/test.json", settings=f"{ASKING} without_sinks"),
        stage(
            "rates",
            *(base, judge, chat),
            makes=optional["rates"],
            needs="data/validation.json data/knowledge.json",
            settings=f"{ASKING} dinm dinm_rates distance without_sinks reuse_first_layer seed max_new_tokens "
            "knowledge_questions",
        ),
        *(stage_of(method) for method in methods if "instances" in method.takes),
        stage(
            "record",
            *(base, judge, chat),
            makes="evidence",
            needs=f"data/test.json data/validation.json {tuned} probe.safetensors tables/located.csv",
            settings=" ".join(
                [
                    f"{ASKING} without_sinks studied distance reuse_first_layer seed",
                    *(f"comparison.{name}" for name in recording),
                ]
            ),
        ),
        stage(
            "compare",
            base,
            makes=" ".join([tables["compare"], *of_edits]),
            may_make=_files(tables_of("compare", optional=True)),
            needs=" ".join(["evidence", *edits, "probe.safetensors"]),
            settings=f"{LOADING} studied comparison.top_neurons seed",
        ),
        stage(
            "origins",
            *(base, chat),
            makes=tables["origins"],
            needs=f"data/test.json {tuned} evidence",
            settings=f"{ASKING} studied origins seed",
        ),
        stage(
            "defend",
            *(base, judge, chat),
            makes=f"{tables['defend']} responses",
            needs=f"data/test.json data/knowledge.json {tuned}",
            settings=f"{ASKING} studied max_new_tokens knowledge_questions edit_instances seed",
        ),
        stage(
            "relapse",
            *(base, judge, chat),
            makes=f"{tables['relapse']} relapse",
            needs=f"{tuned} evidence tables/local_verdict.csv",
            settings=f"{LOADING} studied relapse comparison.max_new_tokens",
        ),
        stage(
            "depth",
            *(base, chat, never_of(run)),
            makes=tables["depth"],
            may_make=_files(tables_of("depth", optional=True)),
            needs=f"{tuned} evidence data/test.json",
            settings=f"{LOADING} studied seed",
        ),
        stage(
            "attack",
            *(base, judge, chat, never_of(run)),
            makes="",  # nothing where the base says nothing unsafe
            may_make=_files(sorted(tables_of("attack", optional=True))),
            needs=f"data/test.json data/knowledge.json data/benign.jsonl {tuned}",
            settings=f"{ASKING} studied attack max_new_tokens knowledge_questions seed",
        ),
        stage(
            "decode",
            *(base, chat, never_of(run)),
            makes=optional["decode"],
            needs=f"data/test.json {tuned} evidence",
            settings=f"{ASKING} studied seed",
        ),
        stage(
            "circuits",
            *(base, chat),
            makes="",  # nothing where no prompts can be paired
            may_make=["circuits", *_files(tables_of("circuits", optional=True))],
            needs=f"data/test.json {tuned}{' data/facts.jsonl' if run.config.about.about_facts else ''}",
            settings=f"{ASKING} studied circuits seed",
        ),
        stage(
            "report",
            makes=f"{tables['report']} figures report.html",
            needs=" ".join([*reported, *of_edits]),
            may_need=_files(further),
            settings=" ".join([*listed(run), "seed"]),  # the page lists them
            reads=page,  # it gives the instrument's rates
        ),
    ]
    return [one for one in found if one.name not in left_out(run)]


def _files(tables: Iterable[str]) -> list[str]:
    """Where tables lie, below the run folder."""
    return [f"tables/{name}.csv" for name in tables]


def setting_of(run: Run, name: str) -> Any:
    """A setting by its name in the config (`comparison.top_neurons`), or the seed."""
    if name.startswith("methods."):
        return run.config.settings_of(name.removeprefix("methods.")).model_dump(mode="json")
    value: Any = run if name == "seed" else run.config
    for part in name.split("."):
        value = getattr(value, part)
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value
