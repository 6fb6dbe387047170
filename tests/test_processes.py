"""Two processes (gloo, CPU) give the numbers and the tables of one."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from command_line import call
from launching import ASKED, COMPARE, HOOKS, MAX_TOKENS, make_together, recorded_by, told

from mechinterp.audit.location import locate
from mechinterp.data.safeedit import read_safeedit
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.recorded import Recording


@pytest.fixture
def together(shared: Callable[..., Path]) -> Path:
    return shared("together", make_together)


@pytest.fixture
def folder(together: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the two have recorded and compared; the test is in it."""
    monkeypatch.chdir(together / "recorded")
    return together / "recorded"


@pytest.mark.parametrize("max_tokens", MAX_TOKENS)
def test_two_processes_give_the_means_of_one(folder: Path, together: Path, max_tokens: int) -> None:
    done = told(together, f"record-{max_tokens}")
    assert done.codes == (0, 0), done.stderr
    found, answers, _ = recorded_by(max_tokens)
    made = [folder / f"record-{max_tokens}-{rank}" for rank in (0, 1)]
    for here in made:  # each goes on with the sums of both
        for position, alone in found.items():
            both = Recording.load(here / f"{position}.safetensors")
            assert torch.equal(both.group_sizes, alone.group_sizes)
            assert both.non_finite == alone.non_finite
            for hook in HOOKS:
                torch.testing.assert_close(both.mean(hook), alone.mean(hook), rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(both.inputs[HOOKS[0]], alone.inputs[HOOKS[0]], rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(both.projections[HOOKS[1]], alone.projections[HOOKS[1]], rtol=1e-6, atol=1e-6)
        assert json.loads((here / "answers.json").read_text()) == answers
    shares = [json.loads((here / "read.json").read_text()) for here in made]
    read = [share[-1][0] if share else 0 for share in shares]
    assert sum(read) == len(ASKED)
    assert (min(read) > 0) == (max_tokens == MAX_TOKENS[0])


def test_two_processes_locate_as_one(folder: Path) -> None:
    alone = locate(Checkpoint.load("base", device="cpu"), read_safeedit("data.json"))
    for rank in (0, 1):
        both = pd.read_csv(folder / f"record-{MAX_TOKENS[0]}-{rank}" / "located.csv")
        pd.testing.assert_frame_equal(both, alone, rtol=1e-6, check_dtype=False)


@pytest.mark.usefixtures("quick_comparison")
def test_two_processes_write_the_table_of_one(folder: Path, together: Path, tmp_path: Path) -> None:
    done = told(together, "compare")
    assert done.codes == (0, 0), done.stderr
    assert done.stdout.count("report:") == 1
    assert call(*COMPARE, tmp_path / "one") == 0
    names = sorted(path.name for path in (tmp_path / "one" / "tables").glob("*.csv"))
    assert {"mechanism.csv", "local_verdict.csv", "decomposition.csv", "toxic_layer.csv"} <= set(names)
    for name in names:
        one, two = (pd.read_csv(out / "tables" / name) for out in (tmp_path / "one", folder / "two"))
        pd.testing.assert_frame_equal(one, two, rtol=1e-6, atol=1e-9)


def test_bad_input_is_told_once(together: Path) -> None:
    done = told(together, "refused")
    assert done.codes == (2, -signal.SIGTERM)
    assert done.stderr.count("mechinterp: nowhere: no such folder") == 1


def test_what_goes_wrong_in_one_share_alone_is_told(together: Path) -> None:
    done = told(together, "alone")
    assert done.codes == (None, 2)
    assert "[process 1] mechinterp: instance 1: a response has 300 tokens" in done.stderr


def test_one_process_needs_no_launcher() -> None:
    assert not processes.launched()
    assert processes.is_main()
    assert processes.share([1, 2, 3]) == [1, 2, 3]
    assert processes.gather(["a"]) == ["a"]
    assert processes.from_main("a") == "a"
    total = torch.ones(2)
    processes.add_up([total])
    assert torch.equal(total, torch.ones(2))


def test_a_model_over_all_devices_wants_one_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mechinterp.errors import InputError

    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="start one process"):
        Checkpoint.load(folder / "base", device="cpu", device_map="auto")
