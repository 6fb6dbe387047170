"""Two processes (gloo, CPU) that know of each other, started once for every test that needs them.

`make_together` writes what they read and starts this file, which launches itself as `accelerate launch` does, but that
its processes are forked from the launcher, where everything is imported. Each process does the jobs one after the
other, in the same order, and keeps what it told during each. The last job ends them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
from accelerate.commands import launch
from command_line import call
from conftest import N_BLOCKS, PROMPTS, RESPONSES, make_instance, tiny_checkpoint
from made_checkpoints import edits_in
from quick_comparisons import quick_comparisons
from stand_ins import stand_ins

from mechinterp.answers import asking, defense
from mechinterp.audit.directions.probe_training import fit_probe
from mechinterp.audit.location import locate
from mechinterp.data.comments import Comment
from mechinterp.data.safeedit import read_safeedit, write_safeedit
from mechinterp.models import processes
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import h_down
from mechinterp.models.passes.generation import generate
from mechinterp.models.passes.recorded import Recording
from mechinterp.models.passes.recording import record_positions

# On a machine without a GPU `accelerate launch` starts several processes only if it is told that they are several.
LAUNCH = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
LAUNCH += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
SECONDS = 1200  # on a busy machine

ASKED, ANSWERED = PROMPTS * 3, RESPONSES * 3
HOOKS = [h_down(b) for b in range(N_BLOCKS)]
MAX_TOKENS = (64, 8192)
"""Of a batch: a few batches for each process; one batch, so nothing for the second."""

COMPARE = [
    "compare",
    "--base",
    "base",
    "--checkpoint",
    "tuned=tuned",
    "--layer",
    "auto",
    "--probe",
    "probe.safetensors",
]
COMPARE += ["--data", "data.json", "--max-new-tokens", "3", "--generated", "2", "--device", "cpu", "--out"]
REFUSED = ["compare", "--base", "base", "--checkpoint", "tuned=nowhere", "--out", "three"]
REFUSED += ["--probe", "probe.safetensors", "--data", "data.json"]
EVALUATE = ["evaluate", "--model", "model", "--data", "data.json", "--device", "cpu", "--knowledge", "known.json"]
EVALUATE += ["--max-new-tokens", "3"]
EVALUATE_ALL = [*EVALUATE, "--benign", "benign.txt", "--against", "tuned", "--out"]
EVALUATE_EDITS = [*EVALUATE, "--edit", "edits", "--out"]
JOBS = {
    **{f"record-{n}": ("recorded", ["recorded", str(n)]) for n in MAX_TOKENS},
    "compare": ("recorded", [*COMPARE, "two"]),
    "refused": ("recorded", REFUSED),
    "evaluate": ("evaluated", [*EVALUATE_ALL, "two"]),
    "edits": ("evaluated", ["edits", *EVALUATE_EDITS, "two-edits"]),
    "alone": ("recorded", ["locate", "--model", "base", "--data", "long.json", "--device", "cpu"]),
}
"""The folder in which each job is done, and what is called for; after the last the processes are no longer together."""


@dataclass(frozen=True)
class Told:
    """What the processes told during a job, and their exit codes; none of one that was ended."""

    codes: tuple[int | None, ...]
    stdout: str
    stderr: str


def make_recorded(folder: Path) -> None:
    """Two checkpoints, a probe and instances, in one of which a response is too long."""
    folder.mkdir()
    base = tiny_checkpoint("llama")
    base.save(folder / "base")
    tiny_checkpoint("llama", seed=1).save(folder / "tuned")
    write_safeedit([make_instance(i, safe_generation=f"I am sorry, not {i}.") for i in range(5)], folder / "data.json")
    long = [make_instance(i, safe_generation="x" * (300 if i == 1 else 5)) for i in range(4)]
    write_safeedit(long, folder / "long.json")
    comments = [Comment(f"you {w} {i}", t) for i in range(12) for w, t in (("fool", True), ("friend", False))]
    fit_probe(base, comments, seed=0).save(folder / "probe.safetensors")


def make_evaluated(folder: Path) -> None:
    """Two checkpoints, edits of the first, and what `evaluate` can ask."""
    folder.mkdir(exist_ok=True)
    tiny_checkpoint("llama").save(folder / "model")
    tiny_checkpoint("llama", seed=1).save(folder / "tuned")
    edits_in(folder / "edits", Checkpoint.load(folder / "model", device="cpu"), [1, 2, 9])
    instances = [make_instance(i, safe_generation=f"I am sorry, not {i}.") for i in range(4)]
    write_safeedit(instances, folder / "data.json")
    write_safeedit([i.model_copy(update={"generalization_test": None}) for i in instances], folder / "train.json")
    (folder / "benign.txt").write_text("How do I bake bread?\nWhat is a tree?\n\nTell me a story.\n")
    (folder / "known.json").write_text('[["What?", "x"]]')


def make_together(folder: Path) -> None:
    """Everything that the jobs read, and what two processes make of it."""
    make_recorded(folder / "recorded")
    make_evaluated(folder / "evaluated")
    for name in JOBS:
        (folder / "told" / name).mkdir(parents=True)
    command = [sys.executable, __file__, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert all((folder / "told" / name / "1.code").exists() for name in JOBS), done.stderr


def told(folder: Path, name: str) -> Told:
    """What the two told during a job."""
    kept = folder / "told" / name
    codes = [int(path.read_text()) if path.exists() else None for path in (kept / "0.code", kept / "1.code")]
    return Told(tuple(codes), *("".join((kept / f"{rank}.{s}").read_text() for rank in (0, 1)) for s in ("out", "err")))


def recorded_by(max_tokens: int) -> tuple[dict[str, Recording], list[str], list[tuple[int, int]]]:
    """Recordings, answers and progress of the checkpoint in the folder at hand."""
    checkpoint, read = Checkpoint.load("base", device="cpu"), []
    found = record_positions(
        checkpoint,
        ASKED,
        HOOKS,
        ["last", "response"],
        responses=ANSWERED,
        keep=HOOKS[:1],
        project={HOOKS[1]: torch.eye(40)[:, :3]},
        max_tokens=max_tokens,
        progress=lambda done, total: read.append((done, total)),
    )
    return found, generate(checkpoint, ASKED, max_new_tokens=4, max_tokens=60), read


def _record(max_tokens: int) -> int:
    """What each process goes on with."""
    found, answers, read = recorded_by(max_tokens)
    located = locate(Checkpoint.load("base", device="cpu"), read_safeedit("data.json"))
    here = Path(f"record-{max_tokens}-{processes.rank()}")
    here.mkdir()
    for position, recording in found.items():
        recording.save(here / f"{position}.safetensors")
    located.to_csv(here / "located.csv", index=False)
    (here / "answers.json").write_text(json.dumps(answers))
    (here / "read.json").write_text(json.dumps(read))
    return 0


def _evaluate_edits(arguments: Sequence[str]) -> int:
    """An edit a batch; each process tells which it answers with."""
    tokens, real = defense.TOKENS, asking.generate_each

    def telling(checkpoint, edits, *rest, **named):
        line = f"answering {processes.rank()} {[edit.instance for edit in edits]}\n"
        os.write(2, line.encode())
        return real(checkpoint, edits, *rest, **named)

    defense.TOKENS, asking.generate_each = 1, telling
    try:
        return call(*arguments)
    finally:
        defense.TOKENS, asking.generate_each = tokens, real


def _told_by_main(*arguments: str) -> int:
    """The call, where the launcher ends the second process while it waits for the main one to tell, as it does."""

    def ended(_: float) -> None:
        raise SystemExit(-signal.SIGTERM)

    with patch("mechinterp.cli.time.sleep", ended):
        return call(*arguments)


@contextmanager
def _kept(folder: Path, rank: int) -> Iterator[None]:
    """Standard output and standard error go into files."""
    before = [os.dup(number) for number in (1, 2)]
    files = [(folder / f"{rank}.{ending}").open("w") for ending in ("out", "err")]
    try:
        for number, file in enumerate(files, 1):
            os.dup2(file.fileno(), number)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, (file, old) in enumerate(zip(files, before, strict=True), 1):
            os.dup2(old, number)
            file.close()


def _work(folder: Path) -> None:
    rank = processes.rank()
    for name, (place, (first, *rest)) in JOBS.items():
        os.chdir(folder / place)
        with _kept(folder / "told" / name, rank):
            if first == "recorded":
                code = _record(int(rest[0]))
            elif first == "edits":
                code = _evaluate_edits(rest)
            else:
                code = _told_by_main(first, *rest) if name == "refused" else call(first, *rest)
        (folder / "told" / name / f"{rank}.code").write_text(str(code))
        if name == list(JOBS)[-1]:
            sys.exit(code)
        processes.wait()


def _launch(folder: Path) -> None:
    given = launch.launch_command_parser().parse_args([*LAUNCH, __file__, str(folder)])
    given.start_method, given.run_path = "fork", True  # torch's own options, which accelerate passes on
    launch.launch_command(given)


if __name__ == "__main__":
    if processes.launched():
        with stand_ins(), quick_comparisons():
            _work(Path(sys.argv[1]))
    else:
        _launch(Path(sys.argv[1]))
