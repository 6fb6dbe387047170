"""How many toxic layers of a real model are the sink's, before and after leaving massive activations out.

python analyses/massive_activations.py --model FOLDER --comments FILE.csv [--pairs 30]

A pair is a clean and a toxic comment of the file, in its order: real texts in the place of the two responses.
"""

from __future__ import annotations

import argparse
import sys
from itertools import islice

import pandas as pd
from scripts import Given, script

from mechinterp.audit.location import histogram, locate, sinks_in_words
from mechinterp.data.comments import read_comments
from mechinterp.data.safeedit import KnowledgeConstraint, SafeEditInstance
from mechinterp.models.checkpoints import Checkpoint


def pair(number: int, clean: str, toxic: str) -> SafeEditInstance:
    """An instance of which the locator reads the two responses alone."""
    return SafeEditInstance(
        id=number,
        category="Offensiveness",
        question="-",
        attack_id=0,
        attack_prompt="-",
        adversarial_prompt="-",
        safe_generation=clean,
        unsafe_generation=toxic,
        knowledge_constraint=KnowledgeConstraint(prompt="-", answer="-"),
    )


def summary(located: pd.DataFrame, n_blocks: int) -> pd.DataFrame:
    """By distance: pairs whose layer is the sink's, medians of the shares and the margin, and the layers named most."""
    counts = histogram(located, n_blocks)
    rows = []
    for distance, found in located.groupby("distance", sort=False):
        of = counts[counts["distance"] == distance].sort_values("count", ascending=False, kind="stable")
        named = of[of["count"] > 0].head(3)
        rows.append(
            {
                "distance": distance,
                "pairs": len(found),
                "the sink's": int(of["sinks"].sum()),
                "one entry's share": found["entry_share"].median(),
                "margin": found["margin"].median(),
                "layers": ", ".join(f"{b + 1} ({n})" for b, n in zip(named["block"], named["count"], strict=True)),
            }
        )
    return pd.DataFrame(rows)


@script
def main(given: Given) -> None:
    """Locate twice and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="checkpoint: a folder or file")
    parser.add_argument("--comments", required=True, help="CSV of labelled comments")
    parser.add_argument("--pairs", type=int, default=30, help="pairs of comments (default: %(default)s)")
    parser.add_argument("--text-column", help="of the comments' text")
    parser.add_argument("--label-column", help="of their labels")
    arguments = parser.parse_args(given)
    columns = {"text_column": arguments.text_column, "label_column": arguments.label_column}
    checkpoint, comments = Checkpoint.load(arguments.model), read_comments(arguments.comments, **columns)
    sides = ([comment.text for comment in comments if comment.toxic is toxic] for toxic in (False, True))
    pairs = [pair(i, *texts) for i, texts in enumerate(islice(zip(*sides, strict=False), arguments.pairs))]
    for without in (False, True):
        located = locate(checkpoint, pairs, truncate=True, without_sinks=without)
        print(f"\n{'without' if without else 'with'} sinks\n")  # noqa: T201 - a script's output
        print(summary(located, checkpoint.n_blocks).to_string(index=False, float_format="{:.2g}".format))  # noqa: T201
        print(*sinks_in_words(located), sep="\n")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
