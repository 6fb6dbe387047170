"""Table 13: DINM at every block.

python analyses/table13_blocks.py

A low loss is reached at any block; where the located one defends no better than others, location is not what defends.
"""

from argparse import ArgumentParser, Namespace

import pandas as pd
from published import published
from tables import PaperTable, run_table, tidy

from mechinterp.runs.benchmark import Benchmark


def blocks(bench: Benchmark, arguments: Namespace) -> PaperTable:
    """A row per block; the paper's blocks stand at their share of the depth, from first to last."""
    n_blocks = bench.base.n_blocks
    chosen = range(n_blocks) if arguments.blocks is None else arguments.blocks
    parts = []
    for block in chosen:
        settings = {"dinm_at_block": {"block": block}}
        label = f"dinm_block{block}"
        defense = bench.evaluate("dinm_at_block", label=label, settings=settings)
        made = bench.make("dinm_at_block", label=label, settings=settings)
        parts.append(tidy(defense, made, block=block))
    located = pd.Series([bench.blocks[i.id] for i in bench.instances]).value_counts()
    where = ", ".join(f"block {block} for {count}" for block, count in located.items())
    theirs = published("blocks")
    if n_blocks != 32:  # block 31 of 32 has no row in a smaller model
        theirs = theirs.assign(block=(theirs["block"] * (n_blocks - 1) / 31).round().astype(int))
        theirs = theirs.drop_duplicates(["model", "block"])
    return PaperTable(
        pd.concat(parts, ignore_index=True),
        keys=("block",),
        paper="blocks",
        shown=("ds", "avg", "fluency", "kqa"),
        remarks=(
            f"Blocks from 0; located here: {where} of the {len(bench.instances)} instances.",
            "The paper's layers 1, 15, 31 and 32 of 32 stand beside the block at the same share of the depth; where "
            "two of them fall together, the first printed (the located one, 32) is shown.",
        ),
        paper_rows=theirs,
    )


def add_arguments(parser: ArgumentParser) -> None:
    """Fewer blocks, for deep models."""
    parser.add_argument("--blocks", type=int, nargs="+", help="blocks to edit, from 0; all if not given")


if __name__ == "__main__":
    run_table("table13_blocks", "Table 13: DINM at every block", blocks, ["dinm_at_block"], add_arguments=add_arguments)
