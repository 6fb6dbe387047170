"""The calibration: rates worked by hand, zeros that construction promises, resumption."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import nullcontext
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from comparisons import AlternatingJudge, baseline_of
from conftest import N_BLOCKS, make_instance, tiny_checkpoint
from made_checkpoints import perturbed
from relapsing import responses, treated

from mechinterp.audit import certificate as calibration
from mechinterp.audit.certificate import EXPECTED, by_kind, certificate, monotony, rates, read_calibration
from mechinterp.audit.evidence import Baseline
from mechinterp.audit.evidence.settings import ComparisonSettings
from mechinterp.audit.relapse.treatments import RelapseSettings
from mechinterp.data.storage.files import write_text
from mechinterp.data.storage.tables import write_table
from mechinterp.errors import InputError
from mechinterp.measures.statistics import wilson
from mechinterp.methods.constructed import project_out_of_values, train_values, train_without_values
from mechinterp.methods.training.sft import SftSettings
from mechinterp.models.files.weights import fingerprint_model
from mechinterp.models.passes.generation import generate
from mechinterp.report.certificate import calibration_notes, calibration_rows
from mechinterp.runs.calibration import keeping, treating
from mechinterp.runs.calibration import running as calibrating
from mechinterp.runs.calibration.keeping import calibrated
from mechinterp.runs.calibration.running import CalibrationSettings, calibrate
from mechinterp.runs.config import StudyConfig
from mechinterp.runs.study.run import Run

SETTINGS = CalibrationSettings(
    perturbations=1, defense_prompts=4, steps=(0.5, 1.0), methods=("sft",), relapse_prompts=4
)
NUMBER = count()


def row(kind: str, found: str, **more: object) -> dict[str, object]:
    truth, expected = EXPECTED.get(kind, ("", ""))
    judged = {"truth": truth, "expected": expected, "found": found, "direction": "answer", "kind": kind, "t": math.nan}
    measured = {"erasure_share": 0.5, "defense": 0.6, "defense_base": 0.5}
    interval = {"defense_base_low": 0.4, "defense_base_high": 0.6}
    test = {"relapse_found": expected, "relapse_agrees": "yes" if expected else "", "relapse_share_by_values": 0.25}
    key = {"architecture": "mistral", "seed": 0, "checkpoint": f"{kind}, {next(NUMBER)}"}
    return {**judged, **key, **measured, **interval, **test, **more}


FOUND = pd.DataFrame(
    [
        row("frozen_values", "bypassed"),
        row("frozen_values", "undecided"),
        row("values_at_block", "erased"),
        row("values_everywhere", "mixed"),
        row("projected_out", "bypassed", relapse_found="undecided", relapse_agrees="no"),
        row("random_perturbation", "undecided"),
        row("random_perturbation", "bypassed", defense=0.7),
        row("interpolation", "erased"),  # of unknown truth: in no rate
    ]
)


def test_rates_are_those_counted_by_hand() -> None:
    found = rates(FOUND).query("instrument == 'decomposition'").set_index(["verdict", "measure", "among"])
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


def test_the_relapse_test_is_counted_once_for_each_checkpoint() -> None:
    """Its verdict stands in the rows of every direction."""
    both = pd.concat([FOUND, FOUND.assign(direction="probe")])
    found = rates(both).query("instrument == 'relapse'")
    assert set(found["direction"]) == {""}
    found = found.set_index(["verdict", "measure", "among"])
    counted = {
        ("erased", "sensitivity", "all"): (2, 3),
        ("erased", "specificity", "all"): (4, 4),
        ("bypassed", "sensitivity", "all"): (2, 2),
        ("bypassed", "sensitivity", "decided"): (2, 2),
        ("erased", "sensitivity", "decided"): (2, 2),
    }
    for key, (hits, n) in counted.items():
        assert tuple(found.loc[key, ["rate", "n"]]) == (hits / n, n)
    kinds = by_kind(both).set_index(["instrument", "direction", "kind"])
    assert len(kinds) == 3 * len(EXPECTED)
    missed = kinds.loc[("relapse", "", "projected_out")]
    assert (missed["expected"], missed["undecided"], missed["n"], missed["share_min"]) == ("erased", 1, 1, 0.25)
    assert kinds.loc[("decomposition", "probe", "projected_out"), "share_min"] == 0.5
    untested = FOUND.assign(relapse_found="")
    assert set(rates(untested)["instrument"]) == {"decomposition"}


def test_expected_against_found_is_counted_by_kind() -> None:
    found = by_kind(FOUND).query("instrument == 'decomposition'").set_index("kind")
    assert set(found.index) == set(EXPECTED)
    noise = found.loc["random_perturbation"]
    assert (noise["expected"], noise["undecided"], noise["bypassed"], noise["n"]) == ("undecided", 1, 1, 2)
    assert noise["as_before"] == 1  # 0.7 lies outside the base's interval


def test_the_report_tells_the_instruments_apart() -> None:
    rows = list(calibration_rows(FOUND))
    assert ["projected out", "relapse test", "erased", "undecided 1", "0 of 1"] in rows
    assert ["projected out", "decomposition, answer direction", "erased", "bypassed 1", "0 of 1"] in rows
    notes = list(calibration_notes(FOUND[FOUND["kind"] != "interpolation"]))
    assert any(note.startswith("Erased, relapse test: sensitivity 67%") for note in notes)
    assert any(note.startswith("Erased, decomposition, answer direction: sensitivity 33%") for note in notes)


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
    checkpoints = [f"checkpoints/{name}" for name in ("vanilla", "sft", "dpo")]
    for name in ("data/train.json", "data/responses.json", *checkpoints, "edits/order.json"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(folder / name, name)
    (folder / "tables").mkdir()
    config = StudyConfig(
        sft=SftSettings(steps=1, batch_size=4, max_length=200),
        max_new_tokens=3,
        comparison=ComparisonSettings(max_new_tokens=4),
    )
    run = Run(config, 0, folder)
    return SimpleNamespace(
        **vars(run),
        place_of=run.place_of,
        write_table=run.write_table,
        judge=AlternatingJudge(),
        checkpoint=models.__getitem__,
        opened=lambda name: nullcontext(models[name]),
        instances=lambda split: [make_instance(i) for i in range(4)],
    )


@pytest.fixture(autouse=True)
def taken_from_the_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read from a run's folder."""
    for module in (calibrating, treating):
        monkeypatch.setattr(module, "checkpoint_of", lambda study, name: study.checkpoint(name))
        monkeypatch.setattr(module, "judge_of", lambda study: study.judge)
    monkeypatch.setattr(calibrating, "opened", lambda study, name: study.opened(name))
    monkeypatch.setattr(calibrating, "instances_of", lambda study, split: study.instances(split))


def test_what_is_zero_by_construction_is_found_to_be_zero(study: SimpleNamespace) -> None:
    before = {name: fingerprint_model(study.checkpoint(name).model) for name in ("vanilla", "sft")}
    table = calibrate(study, settings=SETTINGS)
    tested = table["relapse_found"] != ""
    assert (tested == (table["expected"] != "")).all()
    assert (tested == (table["relapse_n"] == 4)).all()
    assert (table.loc[tested, "relapse_gain"] == 0.0).all()  # every second answer is unsafe, whatever it says
    assert set(table.loc[tested, "relapse_found"]) == {"undecided"}
    agrees = (table["relapse_agrees"] == "yes") == (table["kind"] == "random_perturbation")
    assert agrees.all()
    assert (table.groupby("checkpoint")["relapse_reason"].nunique() == 1).all()
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


class KnownJudge:
    """Calls unsafe what the base answers."""

    name = "known"

    def __init__(self, unsafe: Iterable[str]) -> None:
        self.unsafe = set(unsafe)

    def __call__(self, responses) -> np.ndarray:
        return np.array([float(response not in self.unsafe) for response in responses])


def test_the_relapse_test_finds_what_construction_promises(study: SimpleNamespace) -> None:
    """V is exactly 1 where nothing but value vectors was changed, exactly 0 where they were not."""
    base, baseline = study.checkpoint("vanilla"), Baseline.load(study.folder / "evidence" / "base")
    config = StudyConfig(
        sft=SftSettings(steps=3, batch_size=4, max_length=200, learning_rate=0.02),
        max_new_tokens=3,
        comparison=ComparisonSettings(max_new_tokens=6),
    )
    prompts = baseline.unsafe_prompts(SETTINGS.relapse_prompts)
    judge = KnownJudge(generate(base, prompts, max_new_tokens=6))
    fuller = SimpleNamespace(**{**vars(study), "config": config, "judge": judge})
    found = calibrate(fuller, settings=SETTINGS.model_copy(update={"directions": ("answer",), "methods": ()}))
    found = found.set_index("kind")
    for kind in ("values_at_block", "values_everywhere"):
        row = found.loc[kind]
        assert row["relapse_gain"] > 0, kind
        assert (row[["relapse_by_values", "relapse_by_values_high", "relapse_by_both"]] == 1.0).all(), kind
    row = found.loc["frozen_values"]
    assert row["relapse_gain"] > 0
    assert (row[["relapse_by_values", "relapse_by_values_low"]] == 0.0).all()
    assert row["relapse_found"] in ("bypassed", "undecided")  # few prompts: the interval may span


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2"])  # with biases, gated, with a norm after the MLP
@pytest.mark.parametrize("kind", ["frozen_values", "values_everywhere", "projected_out"])
def test_transplanted_value_vectors_make_the_base_again_or_nothing(architecture: str, kind: str) -> None:
    base = tiny_checkpoint(architecture)
    sft = {"seed": 0, "settings": SftSettings(steps=3, batch_size=4, max_length=200, learning_rate=0.02)}
    instances = [make_instance(i) for i in range(4)]
    made = {
        "frozen_values": lambda: train_without_values(base, instances, **sft),
        "values_everywhere": lambda: train_values(base, instances, **sft),
        "projected_out": lambda: project_out_of_values(base, torch.ones(base.names.d_model)),
    }[kind]()
    settings = RelapseSettings(treatments=("activations", "values"), blocks="all", draws=0)
    test = treated(base, made, settings=settings)
    by_values = responses(test, "values", N_BLOCKS)
    assert by_values == (test.tuned if kind == "frozen_values" else test.base).responses
    if kind != "projected_out":  # a random model may say the same without a random direction
        assert test.tuned.responses != test.base.responses


def test_a_calibration_that_is_up_to_date_is_only_read(study, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(*_: object, **__: object) -> pd.DataFrame:
        made.append(1)
        return FOUND

    counted.__module__ = calibrate.__module__
    monkeypatch.setattr(keeping, "calibrate", counted)
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
