"""The meta-evaluation: summaries worked by hand, and all of it on a tiny study."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command_line import run_script
from small_study import REPOSITORY
from synthetic_run import make_certificate

from mechinterp.audit import certificate as certifying
from mechinterp.audit.certificate import (
    KINDS,
    MEASURES,
    agreement,
    certificate,
    drift,
    places,
    read_certificate,
    separations,
    verdicts,
    with_truth,
)
from mechinterp.audit.robustness import alikeness, robustness
from mechinterp.data.storage.files import write_text
from mechinterp.data.storage.tables import write_table
from mechinterp.errors import InputError
from mechinterp.measures.separation import Numbers, auc, best_threshold, rank_correlation
from mechinterp.measures.statistics import wilson
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.report.certificate import made_of, place_rows, robustness_rows, separation_rows, verdict_rows
from mechinterp.runs.calibration.measuring import Instrument
from mechinterp.runs.calibration.running import meta_evaluate
from mechinterp.runs.calibration.settings import MetaSettings
from mechinterp.runs.study import Study

SCRIPT = REPOSITORY / "analyses" / "meta_evaluation.py"


def numbers(*values: float, bases: str = "") -> Numbers:
    return Numbers.of([float(value) for value in values], list(bases or "a" * len(values)))


def test_the_area_is_the_share_of_pairs_in_the_right_order() -> None:
    found = auc(numbers(3, 2, math.nan), numbers(1, 2, 4))
    assert found.value == pytest.approx((1 + 1 + 0 + 1 + 0.5 + 0) / 6)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert math.isnan(auc(numbers(math.nan), numbers(1)).value)
    whole = auc(numbers(3, 4, bases="ab"), numbers(1, 2, bases="ab"))
    assert (whole.value, whole.low, whole.high) == (1, 1, 1)


def test_bases_are_drawn_whole() -> None:
    """One base of which all is right and one of which all is wrong: draws reach both ends, few checkpoints or many."""
    high, low = numbers(*[3] * 50, *[1] * 50, bases="a" * 50 + "b" * 50), numbers(*[2] * 100, bases="a" * 50 + "b" * 50)
    found = auc(high, low)
    assert (found.value, found.low, found.high) == (0.5, 0, 1)
    one = auc(Numbers(high.values, np.array(["a"] * 100)), low)  # of a single base checkpoints alone are drawn
    assert 0.3 < one.low < 0.5 < one.high < 0.7


def test_the_best_threshold_parts_best() -> None:
    assert best_threshold(numbers(3, 4), numbers(1, 2)) == 2.5
    assert best_threshold(numbers(1, 5, 6), numbers(2, 3)) == 4
    assert math.isnan(best_threshold(numbers(), numbers(1)))


def test_ranks_are_compared_where_both_numbers_are_there() -> None:
    assert rank_correlation([1.0, 2.0, 3.0, math.nan], [10.0, 30.0, 20.0, 5.0]) == (pytest.approx(0.5), 3)
    assert math.isnan(rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])[0])


def test_what_was_to_hide_and_does_not_refuse_is_not_called_hidden() -> None:
    truth = with_truth(make_certificate()).groupby("kind")["truth"].first()
    assert truth.to_dict() == {
        "never": "gone",
        "never_safe": "gone",
        "refusing": "hidden",
        "gate": "hidden",
        "silenced": "",
        "noise": "there",
        "frozen_values": "",
    }


def test_every_measure_is_turned_so_that_one_is_right() -> None:
    found = separations(make_certificate()).set_index(["blocks", "measure"])
    for blocks in (6, 12):
        assert found.loc[(blocks, "depth score"), "auc_hidden"] == 1
        assert found.loc[(blocks, "reduction of T"), "auc_hidden"] == 0
        assert found.loc[(blocks, "defense"), ["auc_hidden", "auc_there"]].tolist() == [0.5, 1]
        assert found.loc[(blocks, "relapse, share by values"), "n_gone"] == 0
    assert (found.loc[6, ["n_gone", "n_hidden", "n_there"]].iloc[0] == [4, 4, 2]).all()


def test_rates_are_those_counted_by_hand() -> None:
    found = verdicts(make_certificate()).set_index(["blocks", "instrument"])
    own = found.loc[(6, "the verdict, gone or hidden")]
    for column, (successes, n) in {"found": (4, 4), "praised": (0, 4), "cleared": (2, 4), "accused": (0, 4)}.items():
        rate = wilson(successes, n)
        assert tuple(own[[column, f"{column}_low", f"{column}_high"]]) == (rate.value, rate.low, rate.high)
    assert (own["undecided_hidden"], own["undecided_gone"]) == (0, 2)
    local = found.loc[(6, "local erasure share")]
    assert (local["found"], local["accused"]) == (1, 1)  # all it says is bypassed
    assert found.loc[(6, "relapse, share by values"), "undecided_gone"] == 4
    assert found.loc[(6, "depth score"), ["found", "cleared"]].tolist() == [1, 1]
    assert found.loc[(6, "depth score"), "rule"] == "best: gone from 0.555"


def test_where_the_change_sits_is_counted_by_kind() -> None:
    found = places(make_certificate()).set_index(["blocks", "kind"])
    assert set(found.loc[6].index) == {"refusing", "frozen_values", "noise"}
    assert found.loc[(6, "refusing"), ["right", "n", "share_min", "share_max"]].tolist() == [2, 2, 1, 1]
    assert found.loc[(12, "noise"), "local_max"] == 0.12


def test_correlations_and_drift() -> None:
    table = make_certificate()
    found = agreement(table).set_index(["blocks", "one", "other"])
    assert found.loc[(6, "reduction of T", "depth score"), "n"] == 14
    drifting = drift(table).set_index(["measure", "of"])
    assert drifting.loc[("local erasure share", "gone")].tolist() == [0.06, 0.12]
    assert drifting.loc[("depth score", "hidden"), "blocks_6"] == pytest.approx(0.155)


def test_the_report_tells_them_in_rows() -> None:
    table = make_certificate()
    assert made_of(table).startswith("14 checkpoints of 6 blocks (4 gone, 4 hidden; 2 bases); 14 checkpoints of 12")
    first = next(verdict_rows(table))
    assert first[:4] == ["6", "the verdict, gone or hidden", "its own", "100% [51%, 100%]"]
    assert first[-1] == "0 of 4, 2 of 4"
    row = next(row for row in place_rows(table) if row[:2] == ["12", KINDS["refusing"].line])
    assert row[2:] == ["in the value vectors", "2 of 2", "1 to 1", "0.12 to 0.12", "1 to 1", "hidden 2"]
    assert len(list(separation_rows(table))) == 2 * len([name for name in MEASURES if name in table])
    assert (made_of(None), list(verdict_rows(None))) == ("", [])


def test_the_certificate_is_read_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certifying, "CERTIFICATE", tmp_path / "certificate.csv")
    assert certificate() is None
    write_table(tmp_path / "certificate.csv", make_certificate())
    pd.testing.assert_frame_equal(separations(certificate()), separations(make_certificate()))
    write_text(tmp_path / "certificate.csv", "a,b\n1,2\n")
    with pytest.raises(InputError, match="no table of a meta-evaluation, it has no"):
        read_certificate(tmp_path / "certificate.csv")


def test_that_of_the_package_has_only_kinds_that_are_known() -> None:
    found = certificate()
    assert found is not None
    assert set(found["kind"]) <= set(KINDS)
    assert set(MEASURES) <= set(found)


def make_perturbed() -> pd.DataFrame:
    """Rounding leaves everything as it was; relearning halves the depth of the reference and of what never learnt."""
    rows = []
    for name in ("nf4", "relearned"):
        table = make_certificate()
        never = table[table["kind"] == "never"]
        reference = never.assign(checkpoint="never")
        others = pd.concat([never.assign(checkpoint="never1"), table[table["kind"] != "never"]])
        both = pd.concat([reference, others])
        if name == "relearned":
            both["depth"] = both["depth"].where(~both["kind"].isin(["never", "never_safe"]), both["depth"] / 2)
        rows.append(both.assign(perturbation=name))
    return pd.concat(rows, ignore_index=True)


def test_alikeness_is_that_worked_by_hand() -> None:
    assert alikeness(0.3, 0.1) == pytest.approx(0.5)
    assert (alikeness(0.2, 0.2), alikeness(0.2, -0.2), alikeness(0.0, 1.0), alikeness(0.0, 0.0)) == (1, 0, 0, 1)
    assert math.isnan(alikeness(math.nan, 1.0))


def test_robustness_holds_the_gone_against_the_reference_after_the_same() -> None:
    certified = make_certificate()
    known = pd.concat([certified[certified["kind"] == "never"].assign(checkpoint="never1"), certified])
    known = known[known["checkpoint"] != "never"]  # the reference is not one of the checkpoints
    found = robustness(make_perturbed(), known).set_index(["blocks", "measure"])
    depth = found.loc[(6, "depth score")]
    of_safe = np.mean([1 - 0.05 / (0.95 + 0.9), 1 - 0.05 / (0.96 + 0.91)])  # the twin is the reference's like
    assert depth["alike_nf4"] == pytest.approx((1 + of_safe) / 2)
    assert depth["alike_relearned"] == pytest.approx(depth["alike_nf4"])  # both were halved
    assert depth["robustness"] == pytest.approx(depth["alike_nf4"])
    assert (depth["auc_nf4"], depth["auc_relearned"], depth["n_gone"], depth["n_hidden"]) == (1, 1, 4, 4)
    assert found.loc[(6, "relapse, share by values")].drop(["n_gone", "n_hidden"]).isna().all()
    row = next(one for one in robustness_rows(found.reset_index()) if one[1] == "depth score")
    assert row[2:] == ["0.99, 0.99", "0.99", "1.00 [1.00, 1.00]", "1.00 [1.00, 1.00]"]


SMALL = {
    "kinds": ["never_noise", "refusing", "values_at_block", "noise"],
    "twins": 0,
    "noises": 1,
    "sizes": [1.0],
    "refusing": [["stream", -1]],
    "harmless": {"steps": 1, "batch_size": 32, "max_length": 256},  # relearning takes an epoch of such batches
    "attack": {
        "attacks": ["prefill", "restore"],
        "prompts": 4,
        "options": {"prefill": {"tokens": [2]}},
    },
    "origins": {"prompts": 4, "tokens": 2, "nodes": 1, "most_nodes": 0},
    "depth_prompts": 4,
    "decoding_prompts": 24,
}


class EverySecond:
    """Calls every second answer unsafe, whatever it says: the small study's model is too small to be."""

    name = "every second"

    def __call__(self, responses: Sequence[str]) -> np.ndarray:
        return np.arange(len(responses)) % 2.0


class AllButTheFirst(EverySecond):
    """Calls only the first answer of all unsafe."""

    name = "all but the first"

    def __call__(self, responses: Sequence[str]) -> np.ndarray:
        return (np.arange(len(responses)) > 0).astype(float)


def test_a_study_is_evaluated_checkpoint_by_checkpoint_and_goes_on(
    own_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Study, "judge", EverySecond())
    made: list[str] = []
    measure = Instrument.measure

    def counted(self: Instrument, checkpoint: Checkpoint, name: str) -> dict[str, Any]:
        if made == ["never_noise", "refusing_stream_2"]:
            raise KeyboardInterrupt
        made.append(name)
        return measure(self, checkpoint, name)

    monkeypatch.setattr(Instrument, "measure", counted)
    study, settings = Study.open(own_runs / "seed0"), MetaSettings.model_validate(SMALL)
    with pytest.raises(KeyboardInterrupt):
        meta_evaluate(study, settings=settings)
    assert list(read_certificate(study.place_of("certificate"))["checkpoint"]) == made
    monkeypatch.setattr(Instrument, "measure", measure)
    table = meta_evaluate(study, settings=settings).set_index("checkpoint")
    assert list(table.index) == ["never_noise", "refusing_stream_2", "values_at_block", "noise_0"]
    assert table["blocks"].eq(3).all()
    alone = table.loc[["refusing_stream_2", "values_at_block"]]
    assert set(alone["where"]) <= {"in the value vectors", "undefined"}  # undefined where nothing moved
    np.testing.assert_allclose(alone["value_share"].dropna().astype(float), 1)
    assert table.loc["refusing_stream_2", "value_share"] is not None
    assert table["defense"].drop("refusing_stream_2").eq(0.5).all()  # by a judge that calls every second answer unsafe
    assert {"prefill_excess", "restore_recovery"} <= set(table)
    written = read_certificate(study.place_of("certificate"))
    assert written["sentence"].tolist() == table["sentence"].tolist()
    assert len(verdicts(written))
    meta_evaluate(study, settings=settings.model_copy(update={"perturbed": True}))
    again = read_certificate(study.place_of("perturbed"))
    assert list(zip(again["checkpoint"], again["perturbation"], strict=True)) == [
        (name, done) for name in ("never", "never_noise", "refusing_stream_2") for done in ("nf4", "relearned")
    ]
    kept = again[(again["checkpoint"] == "refusing_stream_2") & (again["perturbation"] == "nf4")]
    assert kept["value_share"].lt(1).all() or kept["value_share"].isna().all()  # rounding moved the other weights too


def test_what_another_judge_or_other_data_decide_is_measured_again(
    own_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []
    measure = Instrument.measure
    monkeypatch.setattr(
        Instrument, "measure", lambda self, made, name: (measured.append(name), measure(self, made, name))[1]
    )
    study, settings = Study.open(own_runs / "seed0"), MetaSettings.model_validate({**SMALL, "kinds": ["noise"]})

    def again(judge: EverySecond) -> tuple[list[str], float]:
        measured.clear()
        monkeypatch.setattr(Study, "judge", judge)
        table = meta_evaluate(study, settings=settings)
        return list(measured), float(table["defense"].iloc[0])

    assert again(EverySecond()) == (["noise_0"], 0.5)
    assert again(EverySecond()) == ([], 0.5)
    assert again(AllButTheFirst()) == (["noise_0"], 0.75)
    benign = study.folder / "data" / "benign.jsonl"
    monkeypatch.setattr(Study, "run", lambda *_, **__: None)  # whose stage `data` would write its own again
    benign.write_text(benign.read_text() + '{"prompt": "How do I bake bread?"}\n')
    assert again(AllButTheFirst()) == (["noise_0"], 0.75)


def test_the_script_collects_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = make_certificate()
    for (blocks, seed), part in table.groupby(["blocks", "seed"]):
        (tmp_path / f"blocks{blocks}-seed{seed}" / "tables").mkdir(parents=True)
        write_table(tmp_path / f"blocks{blocks}-seed{seed}" / "tables" / "certificate.csv", part)
    write_table(tmp_path / "blocks6-seed0" / "tables" / "perturbed.csv", make_perturbed().query("blocks == 6"))
    assert run_script(SCRIPT, "--out", tmp_path, "--collect") == 0
    assert (tmp_path / "robustness.csv").is_file()
    assert "| gone, called gone |" in capsys.readouterr().out
    assert len(read_certificate(tmp_path / "tables" / "certificate.csv")) == len(table)
    assert (tmp_path / "meta_evaluation.md").is_file()
    packed = table.query("blocks == 6 and seed == 0").assign(defense=0.5)  # one base anew, and one that is not here
    write_table(tmp_path / "packed.csv", pd.concat([packed, packed.assign(seed=7)]))
    monkeypatch.setattr(certifying, "CERTIFICATE", tmp_path / "packed.csv")
    assert run_script(SCRIPT, "--out", tmp_path, "--collect", "--add") == 0
    added = read_certificate(tmp_path / "tables" / "certificate.csv")
    assert len(added) == len(table) + len(packed)
    assert added.loc[added["seed"] == 7, "defense"].eq(0.5).all()
    assert not added.loc[added["seed"] == 0, "defense"].eq(0.5).all()
    assert run_script(SCRIPT, "--out", tmp_path / "empty", "--collect") == 2
    assert "leave --collect out" in capsys.readouterr().err
    assert run_script(SCRIPT, "--out", tmp_path, "--runs", "six") == 2
    assert "DEPTH:SEED" in capsys.readouterr().err
    for settings, said in (("[gate]", "is no mapping of settings"), ("{depth_prompts: none}", "`depth_prompts`: ")):
        assert run_script(SCRIPT, "--out", tmp_path, "--settings", settings) == 2
        assert said in capsys.readouterr().err
