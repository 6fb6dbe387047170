"""Settings of unlearning tried on validation instances: what is asked, what is told, what is refused."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from command_line import run_script

SCRIPT = Path(__file__).parents[1] / "analyses" / "unlearning_settings.py"


def test_the_best_of_what_was_tried_is_told(
    small_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = "steps: 2, batch_size: 2, warmup_steps: 0"
    tries = [f"{{{few}, learning_rate: {rate}}}" for rate in ("1.0e-9", "1.0e-1")]
    given = ["--method", "grad_diff", "--instances", 4, "--out", tmp_path, "--try", *tries]
    assert run_script(SCRIPT, small_runs / "seed0", *given) == 0
    table = pd.read_csv(tmp_path / "unlearning_settings_grad_diff.csv")
    assert list(table["settings"].str.contains("0.1", regex=False)) == [False, False, True]
    base, still, moved = table.drop(columns="settings").to_numpy().tolist()
    assert still == base  # a rate of nothing changes nothing
    assert moved != base
    best = table.iloc[1:].sort_values("mean", ascending=False, kind="stable").iloc[0]
    assert capsys.readouterr().out.splitlines()[-1] == f"Best: {best['settings']}"


@pytest.mark.parametrize(
    ("method", "tried", "told"),
    [
        ("sft", "{steps: 3}", "sft is no method of unlearning"),
        ("ga", "steps", "--try 'steps' is no mapping of settings"),
        ("ga", "{stepps: 3}", "unknown setting `stepps`"),
    ],
)
def test_what_cannot_be_tried(
    small_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str, tried: str, told: str
) -> None:
    assert run_script(SCRIPT, small_runs / "seed0", "--method", method, "--out", tmp_path, "--try", tried) == 2
    assert told in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
