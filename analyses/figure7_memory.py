"""Figure 7: the memory that each method takes to make its checkpoint.

python analyses/figure7_memory.py

Each method runs in a fresh process, on one instance where it edits instance by instance, SFT and DPO for two steps. On
a GPU it is the most that torch had allocated; on a CPU the peak of the resident memory over what was resident with the
model loaded, so that libraries loaded on the way (TRL) count.
"""

import json
import subprocess
import sys
from argparse import Namespace

import pandas as pd
from tables import PaperTable, run_table, study_of, table_parser

from mechinterp.models.memory import peak_bytes, reset_peak_memory
from mechinterp.runs.benchmark import Benchmark

WAYS = ("sft", "dpo", "ext_sub", "ft_l", "dinm")
STEPS = {"sft": "steps", "dpo": "steps", "ext_sub": "steps"}


def memory(bench: Benchmark, arguments: Namespace) -> PaperTable:
    """A row per method, each measured by a process of its own, while this one holds the run folder."""
    rows = []
    for way in WAYS:
        command = [sys.executable, __file__, *sys.argv[1:], "--measure", way, "--run", str(bench.study.folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append({"method": way, "quantity": "gpu_memory_gb", "value": json.loads(done.stdout.splitlines()[-1])})
    return PaperTable(
        pd.DataFrame(rows).assign(low=float("nan"), high=float("nan"), n=1),
        keys=("method",),
        paper="memory",
        shown=("gpu_memory_gb",),
        remarks=(f"Measured on {bench.base.device.type}.",),
    )


def _measure(bench: Benchmark, way: str) -> float:
    """Gigabytes that a way takes beside the loaded model."""
    import gc

    from mechinterp.methods.registry import METHODS, find_method, settings_for
    from mechinterp.methods.task import Task

    given = dict(bench.study.config.settings_of_methods)
    for name in STEPS:
        own = given.get(name, {})
        plain = own if isinstance(own, dict) else own.model_dump()
        given[name] = settings_for(name, {**plain, "steps": 2, "warmup_steps": 0})
    assert METHODS.keys() >= set(WAYS)
    bench.base.fingerprint  # noqa: B018 - cached from here on
    task = Task(
        instances=bench.instances[:1],
        blocks=bench.blocks,
        training=bench.study.instances("train")[:64],
        settings=given,
        made={"sft": bench.study.checkpoint("sft")} if way == "dpo" else {},
        seed=bench.study.seed,
    )
    gc.collect()
    before = reset_peak_memory(bench.base.device)
    for _ in find_method(way).recipe.make(bench.base, task):
        pass
    return (peak_bytes(bench.base.device) - before) / 1e9


def measure() -> None:
    """What a process of its own does: print the one number."""
    parser = table_parser("The memory of one method, in a run folder where all it stands on has been made.")
    parser.add_argument("--measure", choices=WAYS, required=True)
    arguments = parser.parse_args()
    print(json.dumps(_measure(Benchmark(study_of(arguments)), arguments.measure)))  # noqa: T201 - read by `memory`


if __name__ == "__main__":
    if "--measure" in sys.argv:
        measure()
    else:
        run_table("figure7_memory", "Figure 7: memory of each method", memory, WAYS)
