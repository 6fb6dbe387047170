"""`reproduce`, `compare` and `benchmark`, killed at random moments: what a second call makes of what was left.

    python analyses/benchmarks/killed.py --moments 10

A shrunken study is made once without interruption, a comparison and a benchmark from it. Then each command is started
anew and gets a real signal, SIGKILL or SIGINT in turns, after a seeded share of the time that it takes (another one if
it has ended by then); it is called again; and its tables are held against those of the uninterrupted run, byte by byte.
Files of a user lie beside the folder, in it, and among its tables and figures all the while, and must be what they
were; nothing unfinished may be left. Figures are few and stand-ins, since drawing takes most of the time and nothing is
read back from them.

Every run is a process of its own, forked from one that has imported everything and has a single thread.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch
import trl
import yaml
from transformers import MistralConfig

import mechinterp.cli.app  # every run is forked from a process that has imported what it needs
import mechinterp.report.page
import mechinterp.report.plates
import mechinterp.runs.benchmark
import mechinterp.runs.comparison
import mechinterp.runs.study
from mechinterp.cli import main as command_line
from mechinterp.data.storage.leftovers import is_unfinished
from mechinterp.data.storage.provenance import code_of
from mechinterp.models.names import HookNames
from mechinterp.models.progress import Silent
from mechinterp.runs.config import load_config
from mechinterp.runs.study import Study

SMALL = {
    "corpus": {"questions_per_category": 6, "attacks_per_split": 12, "n_documents": 200, "n_comments": 80},
    "organism": {"n_layers": 2, "d_model": 16, "n_heads": 2, "d_mlp": 40, "vocab_size": 600, "steps": 8},
    "sft": {"steps": 2, "batch_size": 2, "max_length": 128},
    "dpo": {"steps": 2, "batch_size": 2, "max_length": 128},
    "dinm": {"steps": 2, "max_output_tokens": 12},
    "studied": ["sft", "dinm"],
    "edit_instances": 2,
    "knowledge_questions": 2,
    "max_new_tokens": 4,
    "comparison": {
        "max_new_tokens": 4,
        "steering_inputs": 4,
        "middle_inputs": 4,
        "null_draws": 2,
        "first_tokens": 2,
        "lens_tokens": 2,
        "top_vectors": 4,
        "vector_tokens": 2,
    },
    "relapse": {"prompts": 2, "draws": 0, "blocks": "all", "treatments": ["activations", "values", "both"]},
    "origins": {"prompts": 2, "tokens": 2, "nodes": 1, "most_nodes": 0},
}
MINE = ("notes.txt", ".download.partial", "thesis/chapter.tex", "tables/mine.csv", "figures/mine.svg")
"""The user's files, from the folder and from the one around it."""


@dataclass(frozen=True)
class Command:
    """A command under test.

    Attributes:
        name: in the table.
        prepare: makes the folder OUT in which it is started.
        arguments: of the command line, for a folder.
        tables: patterns of the files that must come out the same.
    """

    name: str
    prepare: Callable[[Path], object]
    arguments: Callable[[Path], list[str]]
    tables: str

    def results(self, out: Path) -> dict[str, bytes]:
        """What must come out the same."""
        found = sorted(path for path in out.glob(self.tables) if path.name != "mine.csv")
        return {path.name: path.read_bytes() for path in found}


def start(arguments: list[str], log: Path) -> int:
    """Fork a process that runs a command line; its number."""
    if number := os.fork():
        return number
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        with log.open("a") as sink:
            os.dup2(sink.fileno(), 1)
            os.dup2(sink.fileno(), 2)
        sys.argv = ["mechinterp", *arguments]
        command_line()
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        os._exit(code)  # nothing of the parent is flushed or cleaned up here


def ended(number: int, within: float = 600) -> int:
    """Wait for a process; its exit code, negative for a signal."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        found, status = os.waitpid(number, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)
    raise TimeoutError(f"process {number} did not end")


def plant(out: Path) -> dict[Path, bytes]:
    """Put the user's files into a folder and beside it."""
    planted = {}
    for folder in (out, out.parent):
        for name in MINE:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{path} is mine\n".encode())
            planted[path] = path.read_bytes()
    return planted


def untouched(planted: dict[Path, bytes]) -> bool:
    """Whether every file of the user's is there and what it was."""
    return all(path.is_file() and path.read_bytes() == content for path, content in planted.items())


def found_there(out: Path) -> str:
    """What a killed run left, in few words."""
    files = [path for path in out.rglob("*") if path.is_file() and path.name not in {Path(name).name for name in MINE}]
    stages = sorted((out / "stages").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    last = f", last stage {stages[-1].stem}" if stages else ""
    unfinished = sum(is_unfinished(path.relative_to(out)) for path in files)
    report = ", report" if (out / "report.html").exists() else ""
    return f"{len(files)} files{last}{f', {unfinished} unfinished' if unfinished else ''}{report}"


def interrupted(
    command: Command, place: Path, moment: float, number: int, reference: dict[str, bytes]
) -> dict[str, str] | None:
    """One run that gets a signal after some seconds, and the call after it; None if it had ended before the signal."""
    out, log = place / "out", place / "log.txt"
    out.parent.mkdir(parents=True)
    command.prepare(out)
    planted = plant(out)
    process = start(command.arguments(out), log)
    time.sleep(moment)
    with suppress(ProcessLookupError):
        os.kill(process, number)
    code = ended(process)
    if code == 0:
        shutil.rmtree(place)
        return None
    there, kept = found_there(out), untouched(planted)
    again = ended(start(command.arguments(out), log))
    left = [path for path in out.rglob("*") if is_unfinished(path.relative_to(out))]
    row = {
        "command": command.name,
        "signal": signal.Signals(number).name,
        "after": f"{moment:.2f} s",
        "exit": str(code),
        "what was there": there,
        "resumed": "yes" if again == 0 and not left else f"no: {log.read_text()[-300:]} {left}",
        "same tables": "yes" if command.results(out) == reference else "no",
        "user's files": "as they were" if kept and untouched(planted) else "CHANGED",
    }
    shutil.rmtree(place)
    return row


def read_code(config: Path, out: Path) -> None:
    """Read the code that the stages depend on, for every process forked from now on."""
    for stage in Study(load_config(config), 0, out).stages(Silent()):
        code_of(*stage.code)


def commands(work: Path) -> list[Command]:
    """The three commands, on the study in `work/study`."""
    study, config = work / "study", work / "small.yaml"
    vanilla, tuned = study / "checkpoints" / "vanilla", study / "checkpoints" / "sft"
    compared = ["compare", "--base", str(vanilla), "--probe", str(study / "probe.safetensors"), "--layer", "1"]
    compared += ["--data", str(work / "few.json"), "--max-new-tokens", "3", "--checkpoint", f"sft={tuned}"]
    ways = ["--method", "dinm", "--method", "dinm_sequential"]
    return [
        Command(
            "reproduce",
            lambda out: out.mkdir(),
            lambda out: ["reproduce", "--config", str(config), "--out", str(out)],
            "tables/*.csv",
        ),
        Command("compare", lambda out: out.mkdir(), lambda out: [*compared, "--out", str(out)], "tables/*.csv"),
        Command(
            "benchmark",
            lambda out: shutil.copytree(study, out),
            lambda out: ["benchmark", "--config", str(config), "--out", str(out), *ways],
            "benchmark/*.csv",
        ),
    ]


@contextmanager
def quick() -> Iterator[None]:
    """One thread, and few figures, which are stand-ins; every process forked meanwhile has that too."""
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    torch.set_num_threads(1)
    _ = trl.SFTTrainer, trl.DPOTrainer  # imported now: for every process once
    HookNames(MistralConfig(num_hidden_layers=1)).value_parameter(0)  # likewise what names the organism's modules
    gc.freeze()  # and not looked through by each
    few = {
        name: mechinterp.report.plates.PLATES[name]
        for name in ("toxic_layer", "probe_roc", "defense", "relapse_verdict")
    }
    with (
        patch.dict(mechinterp.report.plates.PLATES, few, clear=True),
        patch.object(mechinterp.report.plates, "figure_bytes", lambda figure, kind="png": kind.encode()),
        patch.object(mechinterp.report.page, "figure_bytes", lambda figure, kind="png": kind.encode()),
    ):
        yield


def main() -> None:
    """Interrupt every command, print a row for each moment, and the counts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=10, help="for each command")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--commands", nargs="+", default=["reproduce", "compare", "benchmark"])
    arguments = parser.parse_args()
    generator, rows = random.Random(arguments.seed), []
    with tempfile.TemporaryDirectory() as folder, quick():
        work = Path(folder)
        (work / "small.yaml").write_text(yaml.safe_dump(SMALL))
        read_code(work / "small.yaml", work / "study")
        for command in commands(work):
            out, began = work / ("study" if command.name == "reproduce" else command.name), time.perf_counter()
            command.prepare(out)
            code = ended(start(command.arguments(out), work / "log.txt"))
            took = time.perf_counter() - began
            if code:
                sys.exit(f"{command.name} ended with {code}: {(work / 'log.txt').read_text()}")
            if command.name == "reproduce":
                by_question = {one["question"]: one for one in json.loads((out / "data" / "test.json").read_text())}
                (work / "few.json").write_text(json.dumps(list(by_question.values())[:12]))
            reference = command.results(out)
            sys.stdout.write(f"{command.name}: {took:.1f} s without interruption, {len(reference)} tables\n")
            done = 0
            while done < (arguments.moments if command.name in arguments.commands else 0):
                number, moment = (signal.SIGKILL, signal.SIGINT)[done % 2], generator.uniform(0, took)
                row = interrupted(command, work / f"{command.name} again", moment, number, reference)
                if row is None:  # the machine is faster now
                    took = moment
                    continue
                rows.append(row)
                done += 1
                sys.stdout.write(" | ".join(row.values()) + "\n")
                sys.stdout.flush()
    good = [r for r in rows if (r["resumed"], r["same tables"], r["user's files"]) == ("yes", "yes", "as they were")]
    sys.stdout.write(f"{json.dumps({'interrupted': len(rows), 'whole': len(good)})}\n")
    sys.exit(len(good) != len(rows))


if __name__ == "__main__":
    main()
