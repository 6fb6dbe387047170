"""Two processes (gloo, CPU) give the numbers and the tables of one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import N_BLOCKS, PROMPTS, RESPONSES, make_instance, tiny_checkpoint
from launching import launched

from mechinterp import processes
from mechinterp.data.comments import Comment
from mechinterp.data.safeedit import write_safeedit
from mechinterp.directions.probing import fit_probe
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.generation import generate
from mechinterp.models.names import h_down
from mechinterp.models.recording import Recording, record_positions

SHARE = """
import json, sys, torch
from mechinterp import processes
from mechinterp.data.safeedit import read_safeedit
from mechinterp.location import locate
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.generation import generate
from mechinterp.models.recording import record_positions
torch.set_num_threads(1)
folder, texts = sys.argv[1], json.load(open(sys.argv[2]))
checkpoint = Checkpoint.load(f"{folder}/base", device="cpu")
read = []
found = record_positions(checkpoint, texts["prompts"], texts["hooks"], ["last", "response"],
    responses=texts["responses"], keep=texts["hooks"][:1], project={texts["hooks"][1]: torch.eye(40)[:, :3]},
    max_tokens=texts["max_tokens"], progress=lambda done, total: read.append((done, total)))
answers = generate(checkpoint, texts["prompts"], max_new_tokens=4, max_tokens=60)
located = locate(checkpoint, read_safeedit(f"{folder}/data.json"))
for position, recording in found.items():
    recording.save(__import__("pathlib").Path(f"{folder}/rank{processes._state().process_index}/{position}.safetensors"))
if processes.is_main():
    json.dump(answers, open(f"{folder}/answers.json", "w"))
    located.to_csv(f"{folder}/located.csv", index=False)
json.dump(read, open(f"{folder}/rank{processes._state().process_index}/read.json", "w"))
"""
HOOKS = [h_down(b) for b in range(N_BLOCKS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    base = tiny_checkpoint("llama")
    base.save(folder / "base")
    tiny_checkpoint("llama", seed=1).save(folder / "tuned")
    write_safeedit([make_instance(i, safe_generation=f"I am sorry, not {i}.") for i in range(5)], folder / "data.json")
    comments = [Comment(f"you {w} {i}", t) for i in range(12) for w, t in (("fool", True), ("friend", False))]
    fit_probe(base, comments, seed=0).save(folder / "probe.safetensors")
    return folder


@pytest.mark.parametrize("max_tokens", [64, 8192])  # a few batches for each; one batch, so nothing for the second
def test_two_processes_give_the_means_of_one(folder: Path, max_tokens: int) -> None:
    texts = {"prompts": PROMPTS * 3, "responses": RESPONSES * 3, "hooks": HOOKS, "max_tokens": max_tokens}
    (folder / "texts.json").write_text(json.dumps(texts))
    (folder / "share.py").write_text(SHARE)
    for rank in (0, 1):
        (folder / f"rank{rank}").mkdir(exist_ok=True)
    done = launched([folder / "share.py", folder, folder / "texts.json"], folder)
    assert done.returncode == 0, done.stderr
    checkpoint = Checkpoint.load(folder / "base", device="cpu")
    one = record_positions(
        checkpoint,
        texts["prompts"],
        HOOKS,
        ["last", "response"],
        responses=texts["responses"],
        keep=HOOKS[:1],
        project={HOOKS[1]: torch.eye(40)[:, :3]},
        max_tokens=max_tokens,
    )
    for rank in (0, 1):  # each goes on with the sums of both
        for position, alone in one.items():
            both = Recording.load(folder / f"rank{rank}" / f"{position}.safetensors")
            assert torch.equal(both.group_sizes, alone.group_sizes)
            assert both.non_finite == alone.non_finite
            for hook in HOOKS:
                torch.testing.assert_close(both.mean(hook), alone.mean(hook), rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(both.inputs[HOOKS[0]], alone.inputs[HOOKS[0]], rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(both.projections[HOOKS[1]], alone.projections[HOOKS[1]], rtol=1e-6, atol=1e-6)
    shares = [json.loads((folder / f"rank{rank}" / "read.json").read_text()) for rank in (0, 1)]
    read = [share[-1][0] if share else 0 for share in shares]
    assert sum(read) == len(texts["prompts"])
    assert (min(read) > 0) == (max_tokens == 64)
    assert json.loads((folder / "answers.json").read_text()) == generate(checkpoint, texts["prompts"], max_new_tokens=4)


def test_two_processes_write_the_table_of_one(folder: Path) -> None:
    compare = ["-m", "mechinterp", "compare", "--base", "base", "--checkpoint", "tuned=tuned", "--layer", "auto"]
    compare += ["--probe", "probe.safetensors", "--data", "data.json", "--max-new-tokens", "3", "--generated", "2"]
    compare += ["--device", "cpu"]
    together = launched([*compare, "--out", "two"], folder)
    assert together.returncode == 0, together.stderr
    assert together.stdout.count("report:") == 1
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *compare, "--out", "one"]
    subprocess.run(command, env=environment, cwd=folder, capture_output=True, check=True)
    names = sorted(path.name for path in (folder / "one" / "tables").glob("*.csv"))
    assert {"mechanism.csv", "verdict.csv", "decomposition.csv", "toxic_layer.csv"} <= set(names)
    for name in names:
        one, two = (pd.read_csv(folder / out / "tables" / name) for out in ("one", "two"))
        pd.testing.assert_frame_equal(one, two, rtol=1e-6, atol=1e-9)


def test_bad_input_is_told_once(folder: Path) -> None:
    compare = ["-m", "mechinterp", "compare", "--base", "base", "--checkpoint", "tuned=nowhere", "--out", "three"]
    done = launched([*compare, "--probe", "probe.safetensors", "--data", "data.json"], folder)
    assert done.returncode != 0
    assert done.stderr.count("mechinterp: nowhere: no such folder") == 1


def test_what_goes_wrong_in_one_share_alone_is_told(folder: Path) -> None:
    instances = [make_instance(i, safe_generation="x" * (300 if i == 1 else 5)) for i in range(4)]
    write_safeedit(instances, folder / "long.json")
    done = launched(["-m", "mechinterp", "locate", "--model", "base", "--data", "long.json", "--device", "cpu"], folder)
    assert done.returncode != 0
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
