"""Checkpoints called like numbers, truths or nothing at all: they keep their names from the command to the report."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
from command_line import call
from conftest import make_instance, tiny_checkpoint

from mechinterp.audit.directions.probe_training import fit_probe
from mechinterp.data.comments import Comment
from mechinterp.data.safeedit import write_safeedit
from mechinterp.data.storage.tables import read_table, write_table
from mechinterp.report.plates import read_tables

NAMES = ("nan", "NA", "null", "None", "inf", "1e5", "true", "007", "<b>", "[red]")


def test_names_and_tokens_stay_text_and_numbers_numbers(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "method": NAMES,
            "token": [*NAMES[1:], None],
            "value": [0.1, None, math.inf, -math.inf, 1e-300, 2, 3, 4, 5, 6],
            "in_play": [True, False] * 5,
            "reason": ["", "None", "a", *["nan of them"] * 7],
        }
    )
    for names in (NAMES, ("007", "1"), ("1e5", "2.0"), ("true", "false"), ("nan", "nan ")):
        part = table[: len(names)].assign(method=names)
        read = read_table(write_table(tmp_path / "t.csv", part))
        assert list(read["method"]) == list(names)
        assert list(read["value"].isna()) == list(part["value"].isna())
        assert list(read["value"].dropna()) == list(part["value"].dropna())
        assert read["in_play"].dtype == bool
    read = read_table(write_table(tmp_path / "t.csv", table))
    assert list(read["token"][:-1]) == list(NAMES[1:])
    assert not isinstance(read["token"].iloc[-1], str)
    assert read["reason"].iloc[1] == "None"


@pytest.mark.usefixtures("quick_comparison")
def test_checkpoints_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("nan", "007", "true")
    monkeypatch.chdir(tmp_path)
    base = tiny_checkpoint("gpt2")
    base.save(tmp_path / "base")
    tiny_checkpoint("gpt2", seed=1).save(tmp_path / "tuned")
    write_safeedit(
        [make_instance(i, safe_generation=f"I am sorry, not {i}.") for i in range(4)], tmp_path / "data.json"
    )
    comments = [Comment(f"you {w} {i}", t) for i in range(12) for w, t in (("fool", True), ("friend", False))]
    fit_probe(base, comments, seed=0).save(tmp_path / "probe.safetensors")
    checkpoints = [part for name in names for part in ("--checkpoint", f"{name}=tuned")]
    common = ["--probe", "probe.safetensors", "--data", "data.json", "--max-new-tokens", "1", "--layer", "1"]
    assert call("compare", "--base", "base", *checkpoints, *common, "--out", "out", "--device", "cpu") == 0
    tables = read_tables(tmp_path / "out")
    assert list(tables["local_verdict"]["method"].unique()) == list(names)
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for name in names:
        assert f">{name}<" in report
