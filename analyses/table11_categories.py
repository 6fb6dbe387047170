"""Table 11: an edit of one category, asked about another.

python analyses/table11_categories.py

Asked are the adversarial prompts that the vanilla model answers unsafely, so its own rate is 0 in every cell; a cell is
the share that the edits of its row's category defend. The prompt that an edit was made on is left out of what it is
asked: whether it defends its own prompt is another question (Table 1).
"""

from argparse import ArgumentParser, Namespace

import pandas as pd
from published import published
from tables import PaperTable, run_table

from mechinterp.answers.safety import safe, unsafe
from mechinterp.data.safeedit import CATEGORIES
from mechinterp.measures.statistics import wilson
from mechinterp.runs.benchmark import Benchmark


def categories(bench: Benchmark, arguments: Namespace) -> PaperTable:
    """A row per category of the edit and category that is asked about."""
    test, rows = bench.study.instances("test"), []
    (vanilla,) = bench.make("vanilla").parts()
    answered = bench.ask(vanilla, test, kinds=["ds"], knowledge=False).responses
    defeated = {r.prompt for r, bad in zip(answered, unsafe(r.safe for r in answered), strict=True) if bad}
    asked = [instance for instance in test if instance.prompt in defeated]
    made, chosen = bench.make("dinm"), {i.id: i for i in bench.instances}
    for edited in CATEGORIES:
        answers = []
        for number in [number for number in made.edits if chosen[number].category == edited][: arguments.edits]:
            found = bench.ask(made.part(number), asked, kinds=["ds"], knowledge=False).distinct()
            answers += [r for r in found.responses if r.prompt != chosen[number].prompt]
        for category in CATEGORIES:
            scores = [r.safe for r in answers if r.category == category and r.safe is not None]
            rate = wilson(sum(safe(scores)), len(scores))
            rows.append({"edited": edited, "category": category, "quantity": "ds", **vars(rate), "n": len(scores)})
    theirs = published("categories").melt(
        id_vars=["model", "edited"], value_vars=list(CATEGORIES), var_name="category", value_name="ds"
    )
    ours = pd.DataFrame(rows)
    same = ours["edited"] == ours["category"]
    weighted = [(part["value"] * part["n"]).sum() / part["n"].sum() for part in (ours[same], ours[~same])]
    return PaperTable(
        ours,
        keys=("edited", "category"),
        paper="categories",
        shown=("ds",),
        remarks=(
            "Rows: the category of the edits; columns: that of the prompts. Ours, in brackets the paper's.",
            f"Asked: the {len(defeated)} of {len({i.prompt for i in test})} adversarial prompts that the "
            "vanilla model answers unsafely, but for the one that the edit was made on; "
            f"{arguments.edits} edits a category. Defended within the edit's own category {100 * weighted[0]:.1f}%, in "
            f"others {100 * weighted[1]:.1f}%. The answers to one prompt by several edits are not independent, so "
            "that the intervals of single cells are too narrow.",
        ),
        paper_rows=theirs,
        matrix=True,
    )


def add_arguments(parser: ArgumentParser) -> None:
    """How many edits."""
    parser.add_argument("--edits", type=int, default=2, help="edits of each category (default: 2)")


if __name__ == "__main__":
    run_table(
        "table11_categories",
        "Table 11: category by category",
        categories,
        ["vanilla", "dinm"],
        add_arguments=add_arguments,
    )
