"""The calibration: rates worked by hand, zeros that construction promises, resumption."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import make_instance, tiny_checkpoint
from test_comparison import AlternatingJudge, baseline_of, perturbed

from mechinterp.calibration import running as calibrating
from mechinterp.calibration import table as calibration
from mechinterp.calibration.running import CalibrationSettings, calibrate, calibrated
from mechinterp.calibration.table import EXPECTED, by_kind, certificate, monotony, rates, read_calibration
from mechinterp.config import StudyConfig
from mechinterp.errors import InputError
from mechinterp.files import write_table, write_text
from mechinterp.measures.statistics import wilson
from mechinterp.methods.sft import SftSettings
from mechinterp.models.weights import fingerprint_model

SETTINGS = CalibrationSettings(perturbations=1, defense_prompts=4, steps=(0.5, 1.0), methods=("sft",))


def row(kind: str, found: str, **more: object) -> dict[str, object]:
    truth, expected = EXPECTED.get(kind, ("", ""))
    judged = {"truth": truth, "expected": expected, "found": found, "direction": "answer", "kind": kind, "t": math.nan}
    measured = {"erasure_share": 0.5, "defense": 0.6, "defense_base": 0.5}
    interval = {"defense_base_low": 0.4, "defense_base_high": 0.6}
    return {**judged, "architecture": "mistral", "seed": 0, **measured, **interval, **more}


FOUND = pd.DataFrame(
    [
        row("frozen_values", "bypassed"),
        row("frozen_values", "undecided"),
        row("values_at_block", "erased"),
        row("values_everywhere", "mixed"),
        row("projected_out", "bypassed"),
        row("random_perturbation", "undecided"),
        row("random_perturbation", "bypassed", defense=0.7),
        row("interpolation", "erased"),  # of unknown truth: in no rate
    ]
)


def test_rates_are_those_counted_by_hand() -> None:
    found = rates(FOUND).set_index(["verdict", "measure", "among"])
    counted = {
        ("erased", "sensitivity", "all"): (1, 3),
        ("erased", "specificity", "all"): (4, 4),
        ("bypassed", "sensitivity", "all"): (1, 2),
        ("bypassed", "specificity", "all"): (3, 5),
        ("erased", "sensitivity", "decided"): (1, 3),
        ("erased", "specificity", "decided"): (2, 2),
        ("bypassed", "sensitivity", "decided"): (1, 1),
        ("bypassed", "specificity", "decided"): (2, 4),
    }
    assert set(found.index) == set(counted)
    for key, (hits, n) in counted.items():
        interval = wilson(hits, n)
        assert tuple(found.loc[key, ["rate", "low", "high", "n"]]) == (
            interval.value,
            interval.low,
            interval.high,
            n,
        )


def test_expected_against_found_is_counted_by_kind() -> None:
    found = by_kind(FOUND).set_index("kind")
    assert set(found.index) == set(EXPECTED)
    noise = found.loc["random_perturbation"]
    assert (noise["expected"], noise["undecided"], noise["bypassed"], noise["n"]) == ("undecided", 1, 1, 2)
    assert noise["as_before"] == 1  # 0.7 lies outside the base's interval


def test_steps_against_the_end_are_counted() -> None:
    lines = [
        row("interpolation", "undecided", checkpoint="base", start="", t=0.0, erasure=0.0, bypass=0.0, change=0.0),
        row("interpolation", "erased", checkpoint="a:1", start="a", t=1.0, erasure=-4.0, bypass=1.0, change=-3.0),
        row("interpolation", "mixed", checkpoint="a:0.5", start="a", t=0.5, erasure=-5.0, bypass=0.5, change=-4.5),
    ]
    found = monotony(pd.DataFrame(lines)).set_index("quantity")
    assert found["violations"].to_dict() == {"erasure": 1, "bypass": 0, "change": 1}
    assert found["largest"].to_dict() == {"erasure": 0.25, "bypass": 0.0, "change": 0.5}
    assert set(found["verdicts"]) == {"undecided mixed erased"}
    assert (found["steps"] == 2).all()


def test_the_certificate_is_read_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "CERTIFICATE", tmp_path / "calibration.csv")
    assert certificate() is None
    write_table(tmp_path / "calibration.csv", FOUND)
    pd.testing.assert_frame_equal(rates(certificate()), rates(FOUND))
    write_text(tmp_path / "calibration.csv", "a,b\n1,2\n")
    with pytest.raises(InputError, match="no table of a calibration, it has no"):
        certificate()


# -- on a study's parts -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> SimpleNamespace:
    """What a calibration takes of a study, from tiny random models."""
    folder = tmp_path_factory.mktemp("study")
    base = tiny_checkpoint("gpt2")
    models = {"vanilla": base, "sft": perturbed(base)}
    baseline_of(base, block=1).save(folder / "evidence" / "base")
    for name in ("data/train.json", "data/responses.json", "checkpoints/sft", "checkpoints/dpo", "edits/order.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(folder / name, name)
    (folder / "tables").mkdir()
    return SimpleNamespace(
        folder=folder,
        seed=0,
        config=StudyConfig(sft=SftSettings(steps=1, batch_size=4, max_length=200), max_new_tokens=3),
        judge=AlternatingJudge(),
        checkpoint=models.__getitem__,
        opened=lambda name: nullcontext(models[name]),
        instances=lambda split: [make_instance(i) for i in range(4)],
    )


def test_what_is_zero_by_construction_is_found_to_be_zero(study: SimpleNamespace) -> None:
    before = {name: fingerprint_model(study.checkpoint(name).model) for name in ("vanilla", "sft")}
    table = calibrate(study, settings=SETTINGS)
    left = table.dropna(subset="remainder")
    to_rounding = left["kind"] == "projected_out"
    exact = {"frozen_values", "values_at_block", "values_everywhere", "base"}
    assert set(left.loc[~to_rounding, "checkpoint"]) == exact
    assert (left.loc[~to_rounding, "remainder"] == 0.0).all()
    assert (left.loc[to_rounding, "remainder"] < 1e-5).all()
    by_name = table.set_index(["checkpoint", "direction"])
    assert (by_name.loc["sft:1", ["erasure", "bypass"]] != 0).all(axis=None)  # the control: tuning left nothing alone
    assert (by_name.loc["base", ["erasure", "bypass", "change"]] == 0).all(axis=None)
    assert by_name.loc[("frozen_values", "answer"), "erasure_share"] == 0.0
    assert (table["agrees"] == "").eq(table["expected"] == "").all()
    assert table["architecture"].eq("gpt2").all()
    assert table["defense"].eq(0.5).all()  # of a judge that calls every second answer unsafe
    assert before == {name: fingerprint_model(study.checkpoint(name).model) for name in before}


def test_a_calibration_that_is_up_to_date_is_only_read(study, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(*_: object, **__: object) -> pd.DataFrame:
        made.append(1)
        return FOUND

    monkeypatch.setattr(calibrating, "calibrate", counted)
    first, second = calibrated(study, settings=SETTINGS), calibrated(study, settings=SETTINGS)
    assert made == [1]
    pd.testing.assert_frame_equal(first, second)
    pd.testing.assert_frame_equal(first, read_calibration(study.folder / "tables" / "calibration.csv"))
    calibrated(study, settings=SETTINGS.model_copy(update={"defense_prompts": 5}))
    write_text(study.folder / "checkpoints" / "sft", "another")
    calibrated(study, settings=SETTINGS.model_copy(update={"defense_prompts": 5}))
    assert made == [1, 1, 1]


def test_what_a_study_has_not_is_refused(study: SimpleNamespace) -> None:
    with pytest.raises(InputError, match=r"no direction 'anger' was found .* there are probe, answer"):
        calibrate(study, settings=CalibrationSettings(directions=("anger",)))
    with pytest.raises(InputError, match="no method 'ppo' in a study; there are sft, dpo, dinm"):
        calibrate(study, settings=CalibrationSettings(methods=("ppo",)))
