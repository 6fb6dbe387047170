"""The paper's numbers: every printed average is recomputed, so that a slip of the pen in the file shows."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import yaml

from mechinterp.answers.judged_response import KINDS
from mechinterp.data.safeedit import CATEGORIES
from mechinterp.errors import InputError

SCRIPT = Path(__file__).parents[1] / "analyses" / "published.py"
CONTENT = yaml.safe_load(SCRIPT.with_suffix(".yaml").read_text(encoding="utf-8"))
TABLES, OTHERS = CONTENT["tables"], CONTENT["other_systems"]
OF_EDITS = ("conflict_edit", "round_edit", "personality_edit")
ROUNDING = 0.02


def _module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("published", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PUBLISHED = _module()


def _contradictions(name: str, frame: pd.DataFrame) -> dict[tuple[str, str, str], float]:
    """(model, method, column) of every printed average off the mean of its printed parts, with that mean."""
    found = {}
    for column, parts in TABLES[name].get("averages", {}).items():
        for _, row in frame.dropna(subset=[column, *parts]).iterrows():
            mean = float(row[parts].astype(float).mean())
            if abs(mean - row[column]) > ROUNDING:
                found[row["model"], row["method"], column] = round(mean, 2)
    return found


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_complete_and_its_averages_follow_from_their_parts(name: str) -> None:
    frame = PUBLISHED.published(name)
    assert {len(row) for row in TABLES[name]["rows"]} == {len(TABLES[name]["columns"])}
    assert set(frame["method"]) <= set(PUBLISHED.METHODS)
    assert set(frame["model"]) <= {"LLaMA2-7B-Chat", "Mistral-7B-v0.1"}
    assert not frame.duplicated([column for column in frame if column in (*PUBLISHED.LABELS, "layer")]).any()
    assert TABLES[name]["number"] in PUBLISHED.source(name)
    assert "https://" in PUBLISHED.source(name)
    known = {(d["model"], d["method"], d["column"]): d["of_parts"] for d in TABLES[name].get("disagreements", [])}
    assert _contradictions(name, frame) == pytest.approx(known, abs=0.01)


@pytest.mark.parametrize("name", OF_EDITS)
def test_a_table_of_another_system_is_complete_and_says_whose_it_is(name: str) -> None:
    frame, entry = PUBLISHED.published(name), CONTENT["other_systems"][name]
    assert {len(row) for row in entry["rows"]} == {len(entry["columns"])}
    assert set(frame["model"]) <= {"GPT2-XL", "GPT-J", "Llama-2-7B-chat"}
    assert not frame.duplicated(["model", "method", "kind"]).any()
    assert "https://" in PUBLISHED.source(name)
    assert PUBLISHED.notes(name)
    numbers = frame.drop(columns=["model", "method", "kind"])
    assert numbers.stack().dropna().between(-100, 100).all()
    if name == "round_edit":  # more than half of them fell: about the share that did
        assert (numbers["fr"] - numbers["ir"]).abs().max() < 5


def test_a_wrong_digit_is_found() -> None:
    frame = PUBLISHED.published("ablations")
    frame.loc[0, "dg_other_a"] += 1
    assert ("LLaMA2-7B-Chat", "dinm", "avg") in _contradictions("ablations", frame)


@pytest.mark.parametrize("name", TABLES)
def test_percentages_are_percent(name: str) -> None:
    frame = PUBLISHED.published(name)
    rates = frame.filter([*KINDS, "dg_avg", "avg", *CATEGORIES]).stack().dropna()
    assert rates.between(20, 100).all()  # a fraction instead of a percentage would be at most 1


def test_the_tables_agree_where_they_print_the_same_edits() -> None:
    methods, ablations, suffixes, blocks = (
        PUBLISHED.published(name).set_index(["model", "method"])[list(KINDS)]
        for name in ("methods", "ablations", "suffixes", "blocks")
    )
    for model in ("LLaMA2-7B-Chat", "Mistral-7B-v0.1"):
        dinm = methods.loc[(model, "dinm")]
        pd.testing.assert_series_equal(ablations.loc[(model, "dinm")], dinm)
        pd.testing.assert_series_equal(suffixes.loc[[(model, "dinm")]].iloc[0], dinm)
    assert (blocks.iloc[0] == methods.loc[("Mistral-7B-v0.1", "dinm")]).all()
    assert (blocks.iloc[1] == ablations.loc[("Mistral-7B-v0.1", "dinm_wo_location")]).all()  # as the note says


@pytest.mark.parametrize("quantity", ["dg_only_q", "dg_other_aq", "avg", "fluency", "kqa", "csum"])
def test_the_mean_and_deviation_over_instances_are_those_of_the_three(quantity: str) -> None:
    frame = PUBLISHED.published("instances").query("method == 'dinm'")
    for _, edits in frame.groupby("model"):
        three, mean = edits[edits["instance"] != "mean"], edits[edits["instance"] == "mean"].iloc[0]
        assert len(three) == 3
        assert three[quantity].mean() == pytest.approx(mean[quantity], abs=ROUNDING)
        assert three[quantity].std(ddof=0) == pytest.approx(mean[f"{quantity}_sd"], abs=ROUNDING)


def test_categories_are_ours_and_the_edited_one_is_defended_best() -> None:
    frame = PUBLISHED.published("categories")
    for _, matrix in frame.groupby("model"):
        matrix = matrix.set_index("edited")[list(CATEGORIES)]
        assert tuple(matrix.index) == CATEGORIES
        assert all(matrix.loc[category].max() == matrix.at[category, category] for category in CATEGORIES)


@pytest.mark.parametrize("name", [name for name in OTHERS if name not in OF_EDITS])
def test_a_table_of_another_system_is_complete_and_says_that_it_is_of_another_model(name: str) -> None:
    frame = PUBLISHED.published(name)
    assert name not in TABLES
    assert {len(row) for row in OTHERS[name]["rows"]} == {len(OTHERS[name]["columns"])}
    assert OTHERS[name].keys() >= {"number", "title", "source"}
    assert frame["model"].str.len().gt(0).all()
    assert not frame.duplicated([column for column in frame if column in PUBLISHED.LABELS]).any()
    assert "https://" in PUBLISHED.source(name)
    beyond = ("fluency", "edges", "seconds", "memory_gb") if name in ("knowedit", "circuit_edges") else ()
    rates = frame.drop(columns=[column for column in frame if column in (*PUBLISHED.LABELS, *beyond)])
    assert rates.stack().dropna().between(0, 100).all()


def test_knowedit_has_five_methods_on_six_sets() -> None:
    frame = PUBLISHED.published("knowedit")
    assert frame.groupby("set")["method"].apply(tuple).to_dict() == dict.fromkeys(
        ("wiki_recent", "zsre", "wikibio", "wiki_counterfact", "convsent", "sanitation"),
        ("rome", "memit", "ft_l", "ft_m", "adalora"),
    )
    assert frame.set_index("set").loc["wiki_recent", "fluency"].between(500, 600).all()


def test_what_was_not_seen_is_missing() -> None:
    assert PUBLISHED.published("memory")["gpu_memory_gb"].isna().all()
    assert PUBLISHED.published("methods").set_index("method").at["ext_sub", "ds"].isna().all()


def test_an_unknown_table_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'table 99'.*methods, ablations, all_test"):
        PUBLISHED.published("table 99")


def test_settings_are_numbers_with_a_source() -> None:
    settings = CONTENT["settings"]
    assert all(entry["source"] for entry in settings.values())
    assert settings["dinm"]["Mistral-7B-v0.1"]["learning_rate"] == pytest.approx(1e-5)  # 1e-5 in YAML would be a text
    for model in ("LLaMA2-7B-Chat", "Mistral-7B-v0.1"):
        assert sum(settings["dinm"][model]["toxic_layers"].values()) == CONTENT["dataset"]["instances"]["test"]
    assert sum(CONTENT["dataset"]["attack_kinds"].values()) == CONTENT["dataset"]["attack_prompts"]
