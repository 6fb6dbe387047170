"""Which stages start again for a change of each setting, file and module: a table, held against the stages' keys.

Nothing is trained. A stage that starts again is taken to make something new of everything it makes, so these are the
most that can start; only the data are really made, and what comes out as it was changes nothing.
"""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import pytest
from conftest import make_instance
from pydantic import BaseModel

from mechinterp.data.safeedit import write_safeedit
from mechinterp.data.storage import provenance
from mechinterp.data.storage.files import write_text
from mechinterp.data.storage.hashing import hash_path
from mechinterp.methods.editing.settings import RateChoice
from mechinterp.methods.training.teaching import TeachSettings
from mechinterp.models.progress import Silent
from mechinterp.runs import stages
from mechinterp.runs.config import StudyConfig
from mechinterp.runs.sections import ChatSettings, CommentsFile, DataFiles
from mechinterp.runs.stages import Runner, Stage, following
from mechinterp.runs.study import Study

REPOSITORY = Path(__file__).parent.parent


def labelled() -> Path:
    """A file of labelled responses."""
    rows = [{"response": f"{word} {n}", "safe": word == "No"} for n in range(4) for word in ("No", "Yes")]
    path = Path(mkdtemp()) / "labelled.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


FURTHER = {
    "teach": TeachSettings(base="owner/name"),
    "comments": CommentsFile(file=Path(__file__)),
    "dinm_rates": RateChoice(),
    "judge_responses": labelled(),
    "behaviour": "refuses",
}
"""What gives a study stages that not every one has, and what is a file."""
ALL = "data vanilla organism sft dpo probe locate dinm record compare origins defend relapse depth report"
LOADED = "organism sft dpo probe locate dinm record compare origins defend relapse depth report"

SETTINGS = {
    "title": "report",
    "teach": f"teach never organism taught {LOADED.removeprefix('organism ')}",
    "never": "never organism depth report",
    "comments": "probes report",
    "dinm_rates": "rates dinm record compare origins defend relapse depth report",
    "model": LOADED,  # another id on the hub
    "data": f"data {LOADED}",  # its files one by one: the table below
    "behaviour": f"data {LOADED.replace('probe ', '')}",  # not what is made of the corpus and of comments
    "judge": "organism record compare origins defend relapse depth report",
    "judge_responses": "data organism record compare origins defend relapse depth report",
    "judge_safe_label": "organism record compare origins defend relapse depth report",
    "dtype": LOADED,
    "device": LOADED,
    "device_map": LOADED,
    "chat": "organism sft dpo probe dinm record compare origins defend relapse depth report",
    "corpus": ALL,
    "organism": f"vanilla {LOADED}",
    "sft": "sft dpo record compare origins defend relapse depth report",
    "dpo": "dpo record compare origins defend relapse depth report",
    "dinm": "dinm record compare origins defend relapse depth report",
    "studied": "record compare origins defend relapse depth report",
    "methods": "report",  # of the benchmark, which has keys of its own
    "final_norm": "probe record compare origins relapse depth report",
    "without_sinks": "probe locate dinm record compare origins defend relapse depth report",
    "distance": "dinm record compare origins defend relapse depth report",
    "reuse_first_layer": "dinm record compare origins defend relapse depth report",
    "edit_instances": "dinm record compare origins defend relapse depth report",
    "benign_prompts": "report",  # of the benchmark
    "knowledge_questions": "defend report",
    "max_new_tokens": "organism defend report",
    "comparison": "record compare origins relapse depth report",
    "comparison.top_neurons": "compare relapse report",
    "relapse": "relapse report",
    "attack": "",  # of a study that has none
    "attack.attacks": "attack report",
    "decode": "decode report",
    "circuits": "circuits report",
    "origins": "origins report",
    "truncate": "organism probe locate dinm record compare origins defend relapse depth report",
}
"""Of a study that makes its own data; a row of several settings holds for each that has no row of its own."""

FILES = {
    "train": "data sft dpo record compare origins defend relapse depth report",
    "validation": "data record compare origins relapse depth report",
    "test": "data organism locate dinm record compare origins defend relapse depth report",
    "comments": "data probe record compare origins relapse depth report",
    "knowledge": "data organism defend report",
    "benign": "data",  # asked by the benchmark alone
    "text_column": "data probe record compare origins relapse depth report",
    "label_column": "data probe record compare origins relapse depth report",
    "max_comments": "data probe record compare origins relapse depth report",
    "model": LOADED,
    "judge": "organism record compare origins defend relapse depth report",
    "chat": "organism sft dpo probe dinm record compare origins defend relapse depth report",
}
"""Of a study of the user's own model, judge, template and files: another content at its place, column or number."""

MODULES = {
    "report.plotting.defense": "report",
    "report.plates": "report",
    "report.cards": "report",
    **dict.fromkeys(
        ("cli.studies", "cli.terminal", "runs.planning.plan", "runs.comparison", "runs.config", "runs.study.study"), ""
    ),
    **dict.fromkeys(
        ("runs.benchmark.making", "answers.refusals", "audit.weights_alone.regions", "methods.editing.ft_l"), ""
    ),
    "runs.study.stages.treat": "sft dpo dinm record compare origins defend relapse depth report",
    "methods.registry": "report",
    "methods.training.sft": "sft dpo record compare origins defend relapse depth report",
    "methods.training.dpo": "dpo record compare origins defend relapse depth report",
    "methods.training.organism": f"vanilla {LOADED}",
    "methods.editing.many_edits": "dinm record compare origins defend relapse depth report",
    "audit.location": "locate dinm record compare origins defend relapse depth report",  # and so where edits are made
    "measures.region": "compare relapse depth report",
    "audit.evidence.recording": "record compare origins relapse depth report",
    "audit.relapse.testing": "relapse report",
    "audit.origins.path": "origins report",
    "data.knowledge": "data",  # which come out as they were
    "answers.judges": "organism record compare origins defend relapse depth report",
    "models.files.loading": f"vanilla {LOADED}",
}
"""A line of code changed."""


SMALL = {"questions_per_category": 6, "attacks_per_split": 12, "n_documents": 50, "n_comments": 40}


# -- what starts again ------------------------------------------------------------------------------------------------

_DATA: dict[str, dict[str, str]] = {}


def data_of(stage: Stage, key: str) -> dict[str, str]:
    """The hashes of the data that a stage makes, which are made once."""
    if key not in _DATA:
        assert stage.rehearse is not None
        with TemporaryDirectory() as place:
            stage.rehearse(Path(place))
            _DATA[key] = {path: hash_path(Path(place) / path) for path in stage.makes}
    return _DATA[key]


def keys(study: Study) -> dict[str, str]:
    """The key of every stage, where each but the first makes something of its own from each key."""
    runner, found = Runner(study.folder), {}
    for stage in study.stages(Silent()):
        found[stage.name] = key = runner.key(stage)
        made = dict.fromkeys((*stage.makes, *stage.may_make), key)
        runner.made |= data_of(stage, key) if stage.rehearse is not None else made
    return found


def starting(before: dict[str, str], study: Study) -> str:
    return " ".join(name for name, key in keys(study).items() if before.get(name) != key)


def names_of(model: BaseModel, above: str = "") -> Iterator[str]:
    """Every setting, those of settings in it by dotted names."""
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from names_of(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def row_of(name: str) -> str:
    return SETTINGS[name] if name in SETTINGS else SETTINGS[name.split(".")[0]]


def another(value: Any, kind: Any) -> Any:
    """Another value of a type."""
    choices = [one for one in get_args(kind) if one is not NoneType] if NoneType in get_args(kind) else []
    kind = choices[0] if choices else kind
    if get_origin(kind) is Literal:
        return next(one for one in get_args(kind) if one != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return 2 * value or 1
    if isinstance(value, tuple):
        return (*value, *value[:1]) or ("x",)
    if isinstance(value, dict):
        return {**value, "steps": {"x": 1}}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind()
    return f"{value or ''}x" if kind is str else kind(1)


def with_another(model: BaseModel, name: str) -> Any:
    """A model with one of its settings changed."""
    first, _, rest = name.partition(".")
    value = getattr(model, first)
    changed = with_another(value, rest) if rest else another(value, type(model).model_fields[first].annotation)
    return model.model_copy(update={first: changed})


@pytest.fixture(scope="module")
def organism(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study that makes its own data."""
    return Study(StudyConfig.model_validate({"corpus": SMALL}), 0, tmp_path_factory.mktemp("organism"))


@pytest.fixture(scope="module")
def organism_keys(organism: Study) -> dict[str, str]:
    """The keys of its stages."""
    return keys(organism)


def write_own(folder: Path) -> StudyConfig:
    """A study of the user's own model, judge and files; the weights are no weights, as nobody reads them."""
    for kind in ("model", "judge"):
        write_text(folder / kind / "config.json", "{}")
        write_text(folder / kind / "model.safetensors", kind)
    for split, first in (("train", 20), ("validation", 10), ("test", 0)):
        write_safeedit([make_instance(first + i) for i in range(4)], folder / f"{split}.json")
    rows = [f"comment {i},remark {i},{i % 2},{(i // 2) % 2}" for i in range(40)]
    write_text(folder / "comments.csv", "\n".join(["text,other,label,again", *rows]))
    write_text(folder / "knowledge.json", json.dumps([["What colour is the sky?", "blue"]]))
    write_text(folder / "benign.jsonl", json.dumps({"prompt": "How do I boil an egg?"}))
    names = {"train": "train.json", "validation": "validation.json", "test": "test.json", "comments": "comments.csv"}
    names |= {"knowledge": "knowledge.json", "benign": "benign.jsonl"}
    files = {name: str(folder / file) for name, file in names.items()}
    data = {**files, "text_column": "text", "label_column": "label"}
    write_text(folder / "mine.jinja", "a template")
    own = {name: str(folder / name) for name in ("model", "judge")} | {"data": data, "chat": str(folder / "mine.jinja")}
    return StudyConfig.model_validate(own)


@pytest.fixture
def own(tmp_path: Path) -> Study:
    return Study(write_own(tmp_path / "own"), 0, tmp_path / "run")


def changed_file(study: Study, name: str) -> Study:
    """The study with other content of one of its files, or another setting of how they are read."""
    data = study.config.data
    assert data is not None
    others = {"text_column": "other", "label_column": "again", "max_comments": 20}
    if name in others:
        data = data.model_copy(update={name: others[name]})
        return replace(study, config=study.config.model_copy(update={"data": data}))
    if name == "chat":
        assert study.config.chat is not None
        write_text(Path(study.config.chat.template), "another template")
    elif name in ("model", "judge"):
        write_text(Path(getattr(study.config, name)) / "model.safetensors", "others")
    elif name in ("train", "validation", "test"):
        write_safeedit([make_instance(20 + i, safe_generation="Never.") for i in range(4)], getattr(data, name))
    elif name == "comments":
        data.comments.write_text(data.comments.read_text().replace("comment 7", "comment seven"))
    elif name == "knowledge":
        write_text(data.knowledge, json.dumps([["What colour is the sky?", "blue"], ["And the grass?", "green"]]))
    else:
        write_text(data.benign, json.dumps({"prompt": "How do I fry an egg?"}))
    return study


# -- the tables -------------------------------------------------------------------------------------------------------


def test_the_tables_have_a_row_for_every_setting_and_file() -> None:
    names = set(names_of(StudyConfig()))
    assert {name.split(".")[0] for name in names} <= set(SETTINGS)
    assert {row for row in SETTINGS if "." in row} <= names
    assert set(FILES) == {*DataFiles.model_fields, "model", "judge", "chat"}


def test_every_setting_starts_what_its_row_says(organism: Study, organism_keys: dict[str, str], own: Study) -> None:
    before = organism_keys
    assert " ".join(before) == ALL
    for name in names_of(organism.config):
        config = with_another(organism.config, name) if name not in ("data", *FURTHER) else None
        if name in FURTHER:
            config = organism.config.model_copy(update={name: FURTHER[name]})
        config = config or organism.config.model_copy(update={"data": own.config.data})
        assert starting(before, replace(organism, config=config)) == row_of(name), name
    assert starting(before, organism) == ""
    assert starting(before, replace(organism, seed=1)) == ALL


@pytest.mark.parametrize("name", FILES)
def test_every_file_starts_what_its_row_says(own: Study, name: str) -> None:
    before = keys(own)
    after = starting(before, changed_file(own, name))
    assert after == FILES[name]


def test_without_a_judge_of_ones_own_it_learns_from_the_training_file(own: Study) -> None:
    study = replace(own, config=own.config.model_copy(update={"judge": None}))
    before = keys(study)
    assert starting(before, own) == "organism record compare origins defend relapse depth report"  # one is added
    assert starting(before, changed_file(study, "train")) == (
        "data organism sft dpo record compare origins defend relapse depth report"
    )


def test_the_seed_starts_only_what_draws_where_the_data_are_given(own: Study) -> None:
    drawing = "sft dpo probe dinm record compare origins defend relapse depth report"
    assert starting(keys(own), replace(own, seed=1)) == drawing


def test_what_is_ones_own_counts_by_its_content_wherever_it_lies(own: Study, tmp_path: Path) -> None:
    before = keys(own)
    shutil.copytree(tmp_path / "own", tmp_path / "elsewhere")
    config = StudyConfig.model_validate_json(
        own.config.model_dump_json().replace(str(tmp_path / "own"), str(tmp_path / "elsewhere"))
    )
    moved = Study(config, 0, tmp_path / "other run")
    assert starting(before, moved) == "organism report"  # a table names the judge, the page lists the places


def test_an_adapter_stands_on_its_base(own: Study, tmp_path: Path) -> None:
    base = Path(str(own.config.model))
    adapter = tmp_path / "adapter"
    write_text(adapter / "adapter_config.json", json.dumps({"base_model_name_or_path": str(base)}))
    write_text(adapter / "adapter_model.safetensors", "adapter")
    study = replace(own, config=own.config.model_copy(update={"model": str(adapter)}))
    before = keys(study)
    assert starting(before, changed_file(study, "benign")) == "data"
    write_text(base / "model.safetensors", "another base")
    assert starting(before, study) == f"data {LOADED}"


@pytest.mark.parametrize("module", MODULES)
def test_a_line_of_code_starts_what_uses_it(
    organism: Study, organism_keys: dict[str, str], module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, real = organism_keys, provenance._code
    monkeypatch.setattr(
        provenance, "_code", lambda name: f"{real(name)} changed" if name == f"mechinterp.{module}" else real(name)
    )
    provenance.code_of.cache_clear()
    try:
        assert starting(before, organism) == MODULES[module]
    finally:
        provenance.code_of.cache_clear()


def chatting(study: Study) -> Study:
    """The study in a chat format: of plain text there is nothing to depend on."""
    return replace(study, config=study.config.model_copy(update={"chat": ChatSettings()}))


def test_what_follows_is_what_the_keys_say(organism: Study) -> None:
    """`following`, by which the tables of the documents are made."""
    listed = chatting(organism).stages(Silent())
    for name in SETTINGS:
        if name.split(".")[0] != "attack" and name not in (
            "model",
            "data",
            "never",
            "judge",
            "judge_safe_label",
            "decode",
            "circuits",
            *FURTHER,
        ):  # which change what is read, or which stages there are
            first = {stage.name for stage in listed if any(own.split(".")[0] == name for own in stage.settings)}
            first = first if "." not in name else {stage.name for stage in listed if name in stage.settings}
            named = " ".join(following(listed, first))
            rows = [row for row in names_of(organism.config) if row == name or row.startswith(f"{name}.")]
            assert {stage for row in rows for stage in row_of(row).split()} == set(named.split()), name


def test_the_runs_readme_has_the_table(organism: Study) -> None:
    made = runpy.run_path(str(REPOSITORY / "analyses" / "stages.py"))["by_setting"](chatting(organism).stages(Silent()))
    assert "\n".join(made) in (REPOSITORY / "mechinterp" / "runs" / "README.md").read_text(encoding="utf-8")


# -- other methods ----------------------------------------------------------------------------------------------------


def test_a_study_of_other_methods_has_stages_for_them_and_for_what_they_start_from(organism: Study) -> None:
    config = StudyConfig.model_validate({"corpus": SMALL, "studied": ["ft_l", "dpo", "ft_l"]})
    study = replace(organism, config=config)
    assert config.studied == ("ft_l", "dpo")
    listed = {stage.name: stage for stage in study.stages(Silent())}
    assert (
        " ".join(listed)
        == "data vanilla organism sft dpo probe locate ft_l record compare origins defend relapse depth report"
    )
    assert listed["ft_l"].makes == ["edits-ft_l"]
    assert {"checkpoints/dpo", "edits-ft_l"} <= set(listed["record"].needs)
    assert "checkpoints/sft" not in listed["record"].needs
    assert "tables/edits-ft_l.csv" in listed["compare"].makes
    other = config.model_copy(update={"methods": {"ft_l": {"steps": 3}}})
    assert (
        starting(keys(study), replace(study, config=other)) == "ft_l record compare origins defend relapse depth report"
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [("dimn", "unknown method 'dimn'; known are vanilla, "), ("self_reminder", "self_reminder changes no weights")],
)
def test_methods_that_a_study_cannot_compare_are_refused(name: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        StudyConfig.model_validate({"studied": ["sft", name]})


# -- the runner on them -----------------------------------------------------------------------------------------------


def make_up(folder: Path, stage: Stage, key: str) -> None:
    for path in stage.makes:
        write_text(folder / path, f"{path} {key}")


def run(study: Study) -> str:
    """Run a study that makes everything but its data up; returns the stages that started."""
    runner, started = Runner(study.folder), []
    for stage in study.stages(Silent()):
        if stage.rehearse is None:
            stage = replace(stage, run=partial(make_up, study.folder, stage, runner.key(stage)))
        if runner.run(stage):
            started.append(stage.name)
    return " ".join(started)


def foreseen(study: Study) -> str:
    runner = Runner(study.folder)
    return " ".join(stage.name for stage in study.stages(Silent()) if not runner.foresee(stage))


def test_a_run_is_up_to_date_in_its_own_folder_and_in_another(own: Study, tmp_path: Path) -> None:
    assert run(own) == f"data {LOADED}"
    assert foreseen(own) == run(own) == ""
    moved = replace(own, folder=own.folder.rename(tmp_path / "moved"))
    assert foreseen(moved) == run(moved) == ""
    relative = replace(moved, folder=Path("moved"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert run(relative) == ""


@pytest.mark.parametrize("name", FILES)
def test_a_plan_and_the_run_agree(own: Study, name: str) -> None:
    run(own)
    changed = changed_file(own, name)
    planned = foreseen(changed)
    assert run(changed) == planned != ""
    assert foreseen(changed) == run(changed) == ""


@pytest.mark.parametrize("name", ["organism", "sft", "compare"])
def test_a_kill_between_what_is_made_and_its_marker_redoes_one_stage(
    own: Study, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = stages.write_json

    def killed(path: Path, value: Any) -> Path:
        if path.name == f"{name}.json":
            raise KeyboardInterrupt
        return real(path, value)

    monkeypatch.setattr(stages, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        run(own)
    monkeypatch.undo()
    rest = f"data {LOADED}".split()
    assert run(own).split() == rest[rest.index(name) :]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"key": "of before", "made": {}, "seconds": 1}', "\x00"])
def test_a_marker_of_an_earlier_kind_or_a_damaged_one_is_stale_and_no_more(own: Study, content: str) -> None:
    run(own)
    (own.folder / "stages" / "probe.json").write_text(content)
    assert run(own) == "probe"  # what it makes is what it was
