"""Table 2: what is left of DINM without its suffix, its constraint, its location, its tuning.

python analyses/table2_ablations.py
"""

from argparse import Namespace

from tables import PaperTable, each_way, harmless, run_table

from mechinterp.runs.benchmark import Benchmark

WAYS = ("dinm", "dinm_wo_suffix", "dinm_wo_constraint", "dinm_wo_location", "dinm_wo_tune")


def ablations(bench: Benchmark, arguments: Namespace) -> PaperTable:
    """A row per ablation."""
    return PaperTable(
        each_way(bench, WAYS),
        keys=("method",),
        paper="ablations",
        shown=("ds", "avg", "fluency", "kqa", "over_refusal"),
        remarks=(
            "wo/Location draws a block for every instance; the paper's row is of one drawn block.",
            harmless(bench),
        ),
    )


if __name__ == "__main__":
    run_table("table2_ablations", "Table 2: ablations of DINM", ablations, WAYS)
