"""What reading single tensors saves, and what comparing two checkpoints costs beside reading them.

    python analyses/benchmarks/weights.py [--tiny] [--device cuda] [--blocks N] [--folder DIR] [--keep]

Writes sharded bfloat16 checkpoints in the shape of Mistral-7B's blocks into a temporary folder and measures, in turns:

- the toxicity T of one block read lazily (`audit.weights_alone.block_cosines`, opening included) against
  `from_pretrained`. transformers 5 maps bfloat16 files into memory and reads nothing until a weight is used, so that
  call alone says little; the ratio `load_over_lazy` is of a model that is there: every weight copied into the process's
  own memory (on a GPU: onto it). The table has the other readings too.
- the peak memory of that computation, and of T with interval and null, above the process's own before it reads a
  weight, each in a fresh process, over the size of the tensor as stored (`lazy_memory_over_tensor`, the larger).
- `difference.diff` of two checkpoints, ranks included, against reading every tensor of both into memory, the files on
  the disk and not in the page cache (`diff_over_reading`, the larger of: one tensor differs, all differ); and the same
  from the page cache, where reading is a copy within memory. A change of low rank in every matrix, as of an adapter
  merged into all of them, takes longest: its rank is followed to the last row.
- `mechinterp --help` (`help_seconds`, median of five processes).
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from checkpoint_files import (
    all_changed,
    check_disk,
    evict,
    low_rank_changed,
    one_changed,
    read_all,
    stored_bytes,
    write_checkpoint,
)
from random_models import Shape
from timing import Seconds, interleave, paired_ratio, report, time_rows
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging

from mechinterp.audit.weights_alone.diff import diff
from mechinterp.audit.weights_alone.erasure import block_cosines
from mechinterp.audit.weights_alone.regions import measure_regions
from mechinterp.errors import InputError
from mechinterp.measures.region import cosines
from mechinterp.models.files.weights import LazyWeights

TARGETS = {
    "load_over_lazy": ">= 20",
    "lazy_memory_over_tensor": "<= 3",
    "diff_over_reading": "<= 1.5",
    "help_seconds": "<= 0.5",
}
TINY = Shape(2, 64, 160, 4, 2, vocab_size=256, max_position_embeddings=64)
DIFF_BLOCKS = 4  # 2.3 GB a checkpoint, four of them
BLOCK = 1
READING, COLD = "reading both checkpoints", ", from the disk"


def mistral_blocks(blocks: int) -> Shape:
    """Mistral-7B with fewer blocks."""
    return Shape(blocks, 4096, 14336, 32, 8, vocab_size=32_000, max_position_embeddings=32_768)


def toxic_direction(shape: Shape) -> Tensor:
    """Any direction will do: what is measured does not depend on it."""
    return torch.randn(shape.hidden_size, generator=torch.Generator().manual_seed(1))


# -- sides ------------------------------------------------------------------------------------------------------------


def load(folder: Path, device: str, *, in_memory: bool) -> PreTrainedModel:
    """A model as `from_pretrained` gives it, or with every weight in memory of the process's own (or of the GPU)."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder, device_map=None if device == "cpu" else device
    )
    if in_memory and device == "cpu":
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
    return model


def toxicity_of_model(model: PreTrainedModel, direction: Tensor) -> float:
    """T of the block of a model in memory, by the same numerics as the lazy reading."""
    weight = model.get_parameter(f"model.layers.{BLOCK}.mlp.down_proj.weight").detach()
    return float(cosines(weight.T, direction.to(weight.device)).mean())


def lazy_toxicity(folder: Path, direction: Tensor) -> float:
    """T of the block from files, opened anew."""
    return float(block_cosines(LazyWeights.open(folder), BLOCK, direction).mean())


# -- measurements -----------------------------------------------------------------------------------------------------


def time_loading(folder: Path, shape: Shape, device: str, repeats: int) -> Seconds:
    """One block's toxicity read lazily, and by way of a loaded model."""
    direction = toxic_direction(shape)
    expected = toxicity_of_model(load(folder, device, in_memory=False), direction)
    if abs(lazy_toxicity(folder, direction) - expected) > 1e-12:
        raise RuntimeError("the two ways do not compute the same T")
    return interleave(
        {
            "T of one block, lazily": lambda: lazy_toxicity(folder, direction),
            "... with interval and null of 1,000 directions": lambda: measure_regions(
                LazyWeights.open(folder), direction, blocks=[BLOCK]
            ),
            "from_pretrained, as it returns": lambda: load(folder, device, in_memory=False),
            "... and T, only that W_V being read": lambda: toxicity_of_model(
                load(folder, device, in_memory=False), direction
            ),
            "from_pretrained, every weight in memory": lambda: load(folder, device, in_memory=True),
            "... and T": lambda: toxicity_of_model(load(folder, device, in_memory=True), direction),
        },
        repeats,
        settle=torch.cuda.synchronize if device != "cpu" else lambda: None,
    )


def time_diff(folders: dict[str, Path], repeats: int) -> Seconds:
    """Comparing checkpoints, and reading both."""

    def compare(kind: str) -> object:
        found = diff(LazyWeights.open(folders["base"]), LazyWeights.open(folders[kind]))
        if found.identical:
            raise RuntimeError("diff saw no difference")
        return found

    sides: dict[str, Callable[[], object]] = {
        READING: lambda: read_all(folders["base"], folders["one"]),
        "diff, one tensor differs": lambda: compare("one"),
        "diff, all tensors differ": lambda: compare("all"),
        "diff, all matrices by one of rank 8": lambda: compare("low"),
    }

    def forget(side: str) -> None:
        if side.endswith(COLD):
            for folder in folders.values():
                evict(folder)

    cached = interleave(sides, repeats)
    cold = {f"{name}{COLD}": side for name, side in sides.items()}
    return cached | interleave(cold, repeats, warm_up=0, before=forget)


def measure_memory(folder: Path, width: int, *, null: bool) -> dict[str, float]:
    """Peak memory of a lazy computation above what the process had, in bytes; to be run in a fresh process.

    Mapped pages that were read count, as the operating system counts them.
    """
    direction = torch.randn(width, generator=torch.Generator().manual_seed(1))
    weights = LazyWeights.open(folder)
    name, _ = weights.names.value_parameter(BLOCK)
    stored = weights.shape(name)[0] * weights.shape(name)[1] * weights.dtype(name).itemsize
    before = _status("VmRSS")
    with suppress(OSError):  # where it is not permitted, the peak is that since the process began
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    started = time.perf_counter()
    if null:
        measure_regions(weights, direction, blocks=[BLOCK])
    else:
        block_cosines(weights, BLOCK, direction)
    return {"peak": _status("VmHWM") - before, "stored": stored, "seconds": time.perf_counter() - started}


def _status(key: str) -> int:
    """A size of this process in bytes, from /proc; where there is none, its peak."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


def in_fresh_process(folder: Path, width: int, *, null: bool) -> dict[str, float]:
    """`measure_memory` in a process of its own."""
    command = [sys.executable, __file__, "--memory-of", str(folder), "--width", str(width), *(["--null"] * null)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def help_seconds(repeats: int = 5) -> list[float]:
    """Seconds of `mechinterp --help`, each in a process of its own."""
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "mechinterp", "--help"], capture_output=True, check=True)
        seconds.append(time.perf_counter() - started)
    return seconds[1:]  # the first one reads the files


# -- the whole --------------------------------------------------------------------------------------------------------


@contextmanager
def working_folder(parent: Path | None, keep: bool) -> Iterator[Path]:
    """A folder for the checkpoints, removed at the end, after an exception too, unless it is to be kept."""
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="weights-", dir=parent))
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="a few kilobytes: does it run at all?")
    parser.add_argument("--device", default="cpu", help="where from_pretrained puts the model: cpu or cuda")
    parser.add_argument("--blocks", type=int, default=12, help="blocks of the checkpoint that is loaded (12: 5.8 GB)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of torch; as many as it takes by itself if not given")
    parser.add_argument("--folder", type=Path, help="where to write; the system's temporary folder if not given")
    parser.add_argument("--keep", action="store_true", help="leave the checkpoints there")
    parser.add_argument("--memory-of", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--width", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--null", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.memory_of is not None:
        sys.stdout.write(json.dumps(measure_memory(arguments.memory_of, arguments.width, null=arguments.null)) + "\n")
        return
    try:
        with working_folder(arguments.folder, arguments.keep) as folder:
            run(folder, arguments)
    except InputError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


def run(folder: Path, arguments: argparse.Namespace) -> None:
    """Write the checkpoints, measure every part, and print."""
    shape = TINY if arguments.tiny else mistral_blocks(arguments.blocks)
    small = TINY if arguments.tiny else mistral_blocks(DIFF_BLOCKS)
    repeats = 1 if arguments.tiny else arguments.repeats
    check_disk(folder, stored_bytes(shape) + 4 * stored_bytes(small))
    whole = write_checkpoint(folder / "whole", shape)
    loading = time_loading(whole, shape, arguments.device, repeats)
    memory = {null: in_fresh_process(whole, shape.hidden_size, null=null) for null in (False, True)}
    if not arguments.keep:  # makes room in the page cache for those that follow
        for file in whole.iterdir():
            file.unlink()
    one = one_changed(f"model.layers.{BLOCK}.mlp.down_proj.weight")
    changes = {"one": one, "all": all_changed, "low": low_rank_changed(8)}
    folders = {"base": write_checkpoint(folder / "base", small)}
    folders |= {kind: write_checkpoint(folder / kind, small, change=change) for kind, change in changes.items()}
    comparing = time_diff(folders, repeats)
    helping = {"mechinterp --help": help_seconds(1 if arguments.tiny else 5)}
    lazily, loaded = "T of one block, lazily", "from_pretrained, every weight in memory"
    usual, low = ("diff, one tensor differs", "diff, all tensors differ"), "diff, all matrices by one of rank 8"

    def ratio(side: str, state: str = "") -> float:
        return paired_ratio(comparing, f"{side}{state}", f"{READING}{state}")

    rows = []
    for row in time_rows(loading):
        rows.append({**row, "ratio": paired_ratio(loading, str(row["side"]), lazily)})
    for row in time_rows(comparing):
        side = str(row["side"])
        state = COLD if side.endswith(COLD) else ""
        rows.append({**row, "ratio": ratio(side.removesuffix(COLD), state)})
    rows += time_rows(helping)
    over_tensor = {null: measured["peak"] / measured["stored"] for null, measured in memory.items()}
    for null, measured in memory.items():
        sizes = f"{measured['peak'] / 1e6:.0f} MB, the tensor {measured['stored'] / 1e6:.0f} MB"
        what = "T with interval and null" if null else "T"
        rows.append({"side": f"peak memory of {what}: {sizes}", "ratio": over_tensor[null]})
    report(
        "Weights only: one block read lazily, two checkpoints compared",
        {
            "loaded checkpoint": f"{shape}, bfloat16, {stored_bytes(shape) / 1e9:.2f} GB in several shards",
            "compared checkpoints": f"{small}, bfloat16, {stored_bytes(small) / 1e9:.2f} GB each",
            "device of the loaded model": arguments.device,
            "threads": torch.get_num_threads(),
            "files": "in the page cache where nothing else is said: the harder case for what saves reading",
        },
        rows,
        {
            "load_over_lazy": paired_ratio(loading, loaded, lazily),
            "load_and_toxicity_over_lazy": paired_ratio(loading, "... and T", lazily),
            "lazy_memory_over_tensor": max(over_tensor.values()),
            "diff_over_reading": max(ratio(side, COLD) for side in usual),
            "diff_of_low_rank_over_reading": ratio(low, COLD),
            "diff_over_cached_reading": max(ratio(side) for side in usual),
            "diff_of_one_over_cached_reading": ratio(usual[0]),
            "diff_of_low_rank_over_cached_reading": ratio(low),
            "help_seconds": statistics.median(helping["mechinterp --help"]),
        },
        TARGETS,
    )


if __name__ == "__main__":
    main()
