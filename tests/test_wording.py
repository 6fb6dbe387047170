"""How mistakes are worded: a near name where one is unknown, and nothing of pydantic's own."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import mechinterp
from mechinterp.audit.evidence import ComparisonSettings
from mechinterp.audit.relapse.treatments import RelapseSettings
from mechinterp.cli.common import settings_of
from mechinterp.data.counting import many
from mechinterp.errors import InputError, near
from mechinterp.measures.distances import DISTANCES
from mechinterp.methods.registry import find_method
from mechinterp.models.passes.positions import SPANS
from mechinterp.models.text.tokens import generated_tokens
from mechinterp.report.plates import draw_figure
from mechinterp.runs.config import load_config


def test_a_near_name_is_suggested_and_a_far_one_is_not() -> None:
    assert near("verdicts", ["verdict", "validity"]) == "; did you mean 'verdict'?"
    assert near("zzzz", ["verdict"]) == near(3, ["verdict"]) == near("x", []) == ""
    assert near("fig5", ["fig8_middle_shift", "fig5_mechanism"]) == "; did you mean 'fig5_mechanism'?"
    assert near("released ", DISTANCES) == "; did you mean 'released'?"
    assert near("prompt_lst", SPANS) == "; did you mean 'prompt_last'?"


@pytest.mark.parametrize(
    ("work", "meant"),
    [
        (lambda: find_method("dimn"), "dinm"),
        (lambda: draw_figure("erase_or_bypas", {}), "erase_or_bypass"),
        (lambda: settings_of(RelapseSettings, {"treatments": ["activation", "values"]}), "activations"),
        (lambda: generated_tokens("respons"), "response"),
    ],
)
def test_unknown_names_are_answered(work: Callable[[], object], meant: str) -> None:
    with pytest.raises(InputError) as refusal:
        work()
    assert str(refusal.value).endswith(f"; did you mean {meant!r}?")


def test_nothing_is_told_in_the_words_of_pydantic(tmp_path: Path) -> None:
    config = tmp_path / "study.yaml"
    config.write_text("relapse:\n  treatments: [activations]\n")
    told = []
    for work in (
        lambda: settings_of(RelapseSettings, {"treatments": ["nothing"]}),
        lambda: settings_of(RelapseSettings, {"key_factors": [-1.0]}),
        lambda: load_config(config),
        lambda: RelapseSettings(key_factors=[-1.0]),
        lambda: ComparisonSettings(max_new_token=3),
    ):
        with pytest.raises(InputError) as refusal:
            work()
        told.append(str(refusal.value))
    assert told[0].startswith("`treatments`: unknown treatment 'nothing'; known are activations, ")
    assert told[1] == "`key_factors`: keys are scaled by positive numbers, got [-1.0]"
    assert told[2].startswith(f"{config}: `relapse.treatments`: the verdict stands on")
    assert told[3] == told[1]
    assert told[4] == "`max_new_token`: Extra inputs are not permitted, got 3; did you mean 'max_new_tokens'?"
    assert not any("Value error" in line for line in told)


COUNTED = "prompts|questions|checkpoints|instances|comments|answers|responses|facts|pairs|rows|edits|topics|weights"
BY_HAND = re.compile(rf"(?<!of )\{{len\([^{{}}]*\)(?::,)?\}} (?:{COUNTED})\b")


def test_one_of_a_thing_is_told_as_one() -> None:
    assert [many(n, "prompt") for n in (0, 1, 2, 1600)] == ["0 prompts", "1 prompt", "2 prompts", "1,600 prompts"]
    assert [many(n, "weight is", "weights are") for n in (1, 3)] == ["1 weight is", "3 weights are"]
    texts = {path: path.read_text() for path in sorted(Path(mechinterp.__file__).parent.rglob("*.py"))}
    assert BY_HAND.search('f"{len(prompts)} prompts"')
    assert {str(path): found[0] for path, text in texts.items() if (found := BY_HAND.search(text))} == {}
