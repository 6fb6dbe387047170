"""MemFlex without its differences: what is switched, and how it is told (all off is `grad_diff`: `test_unlearning`)."""

from __future__ import annotations

import importlib
from itertools import product
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest

from mechinterp.runs.config import StudyConfig

ANALYSES = Path(__file__).parents[1] / "analyses"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ANALYSES))
    return importlib.import_module("memflex_ablation")


def test_what_is_off_is_as_in_gradient_difference(script: ModuleType) -> None:
    study = SimpleNamespace(config=StudyConfig())
    plain, full = (study.config.settings_of(name).model_dump() for name in ("grad_diff", "memflex"))
    off = script.settings_of(study, dict.fromkeys(script.SWITCHES, False), ["a.weight"])
    assert not off.locate
    assert {name: getattr(off, name) for name in plain} == plain
    on = script.settings_of(study, dict.fromkeys(script.SWITCHES, True), ["a.weight"])
    assert on.model_dump() == {**full, "region": ("a.weight",)}
    rate = script.settings_of(study, {"where": True, "rate": False, "weights": True}, ["a.weight"])
    assert rate.learning_rate == plain["learning_rate"]
    assert rate.forget_weight == full["forget_weight"]


def test_effects_are_of_pairs_that_differ_in_one_thing(script: ModuleType) -> None:
    rows = []
    for run, where, rate, weights in product(("a", "b"), *[(True, False)] * 3):
        row = {"run": run, "where": where, "rate": rate, "weights": weights}
        for number, column in enumerate(script.QUANTITIES):
            value = 0.5 + (0.2 if where and number == 1 else 0) - (0.1 if rate and run == "b" else 0)
            row |= {column: value, f"{column}_low": value - 0.1, f"{column}_high": value + 0.1}
        rows.append(row)
    table = pd.DataFrame(rows)
    effects = script.effects_in_words(table).set_index("difference")
    assert effects.loc["where", "kept (points)"] == "+20 [+20, +20]"
    assert effects.loc["where", "forgotten (points)"] == "+0 [+0, +0]"
    assert effects.loc["rate", "kept (points)"] == "-5 [-10, +0]"
    models = script.models_in_words(table).set_index("model")
    assert len(models) == 8
    assert models.loc["MemFlex", "kept (%)"] == "65 [50, 80]"
    assert models.loc["gradient difference", "kept (%)"] == "50 [40, 60]"
    assert "where alone" in models.index
