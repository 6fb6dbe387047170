"""Table 1: how the methods defend, and what they cost beside it.

python analyses/table1_methods.py

Every way is asked as the paper asks it: DINM with its suffix, Self-Reminder between its reminders, the others plainly.
Beside the paper's quantities: refusals of harmless prompts, and how far the next-token distribution after them moved.
MEND is not built: it trains an editor network on other data.
"""

from argparse import Namespace

from tables import PaperTable, each_way, harmless, run_table

from mechinterp.runs.benchmark import Benchmark

WAYS = ("vanilla", "sft", "dpo", "self_reminder", "ext_sub", "ft_l", "dinm")


def methods(bench: Benchmark, arguments: Namespace) -> PaperTable:
    """A row per way."""
    return PaperTable(
        each_way(bench, WAYS),
        keys=("method",),
        paper="methods",
        shown=("ds", "dg_avg", "fluency", "kqa", "over_refusal"),
        remarks=(
            "Seconds are of making, not of answering; sft and dpo are checkpoints of the study, and have none here.",
            harmless(bench),
        ),
    )


if __name__ == "__main__":
    run_table("table1_methods", "Table 1: methods", methods, WAYS)
