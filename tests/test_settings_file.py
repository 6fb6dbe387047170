"""A config on top of another: what it takes, what it overrules, and what is told of which file."""

from __future__ import annotations

from pathlib import Path

import pytest

from mechinterp.errors import InputError
from mechinterp.runs.config import StudyConfig, load_config

CONFIGS = Path(__file__).parents[1] / "analyses" / "configs"


def write(folder: Path, **files: str) -> Path:
    """Config files; returns the first."""
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{next(iter(files))}.yaml"


def test_mappings_are_joined_and_all_else_is_overruled(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        top="extends: middle.yaml\nsft: {steps: 7}\nstudied: [sft]\nmethods: {npo: {beta: 0.2}}\n",
        middle="extends: low.yaml\ntitle: middle\nmethods: {npo: {steps: 3}, ga: {steps: 4}}\n",
        low="title: low\nsft: {steps: 2, batch_size: 3}\nstudied: [sft, dpo, dinm]\nmax_new_tokens: 9\n",
    )
    config = load_config(path)
    assert (config.title, config.max_new_tokens, config.studied) == ("middle", 9, ("sft",))
    assert (config.sft.steps, config.sft.batch_size) == (7, 3)
    assert config.methods == {"npo": {"steps": 3, "beta": 0.2}, "ga": {"steps": 4}}
    assert load_config(tmp_path / "low.yaml").studied == ("sft", "dpo", "dinm")


def test_an_empty_file_takes_everything(tmp_path: Path) -> None:
    path = write(tmp_path, top="extends: low.yaml", low="title: low\nattack: cheap\n")
    assert load_config(path) == load_config(tmp_path / "low.yaml") != StudyConfig()


@pytest.mark.parametrize(
    ("top", "low", "told"),
    [
        ("# nothing yet", "", r"top\.yaml: holds no settings; write"),
        ("extends: low.yaml", "", r"low\.yaml: holds no settings"),
        ("extends: gone.yaml", "", r"top\.yaml: `extends` gone\.yaml, but there is no such file beside it"),
        ("extends: ../low.yaml", "", r"`extends` is \.\./low\.yaml; name a file in the same folder"),
        ("extends: 3", "", "`extends` is 3; name a file"),
        ("extends: top.yaml", "", "which extends it in turn"),
        ("extends: low.yaml", "extends: top.yaml", r"low\.yaml: `extends` top\.yaml, which extends it in turn"),
        ("extends: low.yaml", "sft: {stepps: 3}", r"low\.yaml: `sft\.stepps`"),
        ("extends: low.yaml\nsft: {stepps: 3}", "title: low", r"top\.yaml: `sft\.stepps`"),
        ("extends: low.yaml\nsft: {steps: .inf}", "title: low", r"top\.yaml: `sft\.steps` is inf"),
        ("extends: low.yaml\nextends: low.yaml", "title: low", "`extends` stands twice"),
    ],
)
def test_what_is_wrong_is_told_of_its_file(tmp_path: Path, top: str, low: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        load_config(write(tmp_path, top=top, low=low))


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("study", ["organism", "organism-methods"])
def test_another_architecture_differs_in_nothing_else(study: str, architecture: str) -> None:
    mistral, other = load_config(CONFIGS / f"{study}.yaml"), load_config(CONFIGS / f"{study}-{architecture}.yaml")
    assert other.organism.architecture == architecture
    organism = other.organism.model_copy(update={"architecture": "mistral"})
    same = {"title": mistral.title, "organism": organism, "studied": mistral.studied}
    assert other.model_copy(update=same) == mistral
    assert set(other.studied) <= set(mistral.studied)
