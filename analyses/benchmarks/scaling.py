"""Recording ever more prompts: does memory stay where it is, and the time per prompt?

python analyses/benchmarks/scaling.py

h_down of the first three blocks of the 12-block model is recorded (its real widths; three blocks so that 10,000 prompts
take about a minute). Lengths are 16-64 tokens, the same in every hundred prompts, so that the work per prompt is equal.
The token budget of a batch is so small that 100 prompts already fill two: both sizes meet the same largest batch.

memory_growth           peak resident memory while 10,000 prompts are recorded / while 100 are, in a fresh process each.
                        Everything counts: interpreter, libraries, weights, the texts themselves. The table adds how far
                        the peak rises above what was resident just before.
time_per_prompt_growth  seconds per prompt at 10,000 / at 1,000; the 1,000 are recorded before and after, and averaged,
                        so that a machine that slows down does not look like growth.

The peak is the kernel's own (VmHWM, reset after the model is built where that is allowed; so Linux only).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

from timing import report

from mechinterp.models.memory import peak_bytes, reset_peak_memory

MAX_TOKENS = 2048
BLOCKS = (0, 1, 2)
TARGETS = {"memory_growth": "<= 1.05", "time_per_prompt_growth": "<= 1.1"}


def measure(sizes: list[int], *, threads: int, tiny: bool) -> dict[str, Any]:
    """Record these numbers of prompts in this process, one after the other.

    Returns:
        Megabytes of the texts, resident before, and at the peak; and the seconds of every recording.
    """
    import torch
    from random_models import TINY, TWELVE_BLOCKS, random_checkpoint, random_prompts, uniform_lengths

    from mechinterp.models.names import h_down
    from mechinterp.models.passes.recording import record

    torch.set_num_threads(threads)
    shape = TINY if tiny else TWELVE_BLOCKS
    checkpoint = random_checkpoint(shape)
    checkpoint.fingerprint  # noqa: B018 - cached from here on
    hooks = [h_down(block) for block in BLOCKS]
    prompts = random_prompts(shape, uniform_lengths(max(sizes), 16, 64))
    record(checkpoint, prompts[:2], hooks)  # imports and caches
    before = reset_peak_memory() / 2**20
    seconds = []
    for size in sizes:
        started = time.perf_counter()
        record(checkpoint, prompts[:size], hooks, max_tokens=MAX_TOKENS)
        seconds.append((size, time.perf_counter() - started))
    texts = sum(map(sys.getsizeof, prompts)) / 2**20
    return {"texts MB": texts, "before MB": before, "peak MB": peak_bytes() / 2**20, "seconds": seconds}


def in_fresh_process(sizes: list[int], arguments: argparse.Namespace) -> dict[str, Any]:
    """`measure` in a process of its own."""
    command = [sys.executable, __file__, "--measure", *map(str, sizes), "--threads", str(arguments.threads)]
    done = subprocess.run([*command, *["--tiny"] * arguments.tiny], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="threads of the CPU (default: %(default)s)")
    parser.add_argument("--tiny", action="store_true", help="a tiny model and few prompts; the ratios mean nothing")
    parser.add_argument("--measure", type=int, nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        found = measure(arguments.measure, threads=arguments.threads, tiny=arguments.tiny)
        print(json.dumps(found))  # noqa: T201 - read by the process that started this one
        return
    few, some, many = (4, 8, 16) if arguments.tiny else (100, 1_000, 10_000)
    memory = {size: in_fresh_process([size], arguments) for size in (few, many)}
    timed = in_fresh_process([few, few, some, many, some, few, few], arguments)
    seconds: dict[int, list[float]] = {few: [], some: [], many: []}
    for size, taken in timed["seconds"]:
        seconds[size].append(taken)
    per_prompt = {size: statistics.mean(taken) / size for size, taken in seconds.items()}
    rows: list[dict[str, object]] = [
        {"prompts": size, "seconds": statistics.mean(taken), "ms per prompt": 1000 * per_prompt[size]}
        for size, taken in seconds.items()
    ]
    for row in rows:
        for size, found in memory.items():
            if row["prompts"] == size:
                row |= {name: value for name, value in found.items() if name != "seconds"}
                row["rise MB"] = found["peak MB"] - found["before MB"]
    report(
        "Recording more prompts",
        {
            "model": "tiny"
            if arguments.tiny
            else "12 blocks, d_model 768, d_mlp 2688, vocabulary 32000, float32, random",
            "recorded": f"h_down of blocks {BLOCKS}, last token, lengths 16-64, {MAX_TOKENS} tokens a batch",
            "device": f"CPU, {arguments.threads} threads",
            "memory": "of a fresh process each; the peak includes libraries, weights and texts",
        },
        rows,
        {
            "memory_growth": memory[many]["peak MB"] / memory[few]["peak MB"],
            "time_per_prompt_growth": per_prompt[many] / per_prompt[some],
            "time_per_prompt_growth_from_100": per_prompt[many] / per_prompt[few],
        },
        TARGETS,
    )


if __name__ == "__main__":
    main()
