"""Facts edited by ROME and FT-M at one block after the other: what became of the fact, its circuit, and other facts.

    python analyses/edit_experiment.py --model MODEL --facts FACTS --out OUT
    python analyses/edit_experiment.py --model MODEL --facts FACTS --out OUT --blocks 1 --circuits 0    # answers alone

Facts that the model does not know are left out. The settings of both methods are chosen on `--validation` facts, none
of whose subjects is reported (0: the published ones). OUT gets tables and figures: `edited_facts.csv` (means over facts
with intervals, the unedited model beside them), `edited_facts_each.csv`, `edited_ranks.csv`, `edited_settings.csv`.
What is there is not made again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from scripts import Given, script

from mechinterp.cli.terminal import terminal
from mechinterp.data.facts.named import named_facts
from mechinterp.models.text.chat import ChatChoice
from mechinterp.report.edited_facts_in_words import edited_facts_in_words
from mechinterp.runs.candidate import Candidate
from mechinterp.runs.edited_facts import EditedFactsSettings, edit_block_by_block


@script
def main(given: Given) -> None:
    """Edit what the command line names, and say what was found."""
    own = {name: field.default for name, field in EditedFactsSettings.model_fields.items()}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a checkpoint")
    parser.add_argument("--facts", required=True, help="a file of facts, or `common`: sixty of our own")
    parser.add_argument("--out", required=True, type=Path, help="folder of the tables and figures")
    parser.add_argument("--methods", nargs="+", choices=own["methods"], default=list(own["methods"]), help="[both]")
    parser.add_argument("--blocks", nargs="+", type=int, help="edited ones, from 0 [five over the depth]")
    for name in ("facts", "validation", "circuits", "ranks", "steps"):
        option = "--most" if name == "facts" else f"--{name}"
        said = EditedFactsSettings.model_fields[name].description
        parser.add_argument(option, type=int, default=own[name], help=f"{said} [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="[%(default)s]")
    parser.add_argument("--dtype", default="auto", help="[%(default)s]")
    parser.add_argument("--device", default="auto", help="[%(default)s]")
    chosen = parser.parse_args(given)
    facts = named_facts(chosen.facts)
    settings = EditedFactsSettings(
        methods=tuple(chosen.methods),
        blocks=None if chosen.blocks is None else tuple(chosen.blocks),
        facts=chosen.most,
        validation=chosen.validation,
        circuits=chosen.circuits,
        ranks=chosen.ranks,
        steps=chosen.steps,
    )
    base = Candidate.of(chosen.model, name="base", dtype=chosen.dtype, device=chosen.device)
    chat = ChatChoice("none")  # facts are completions
    with terminal() as shown:
        found = edit_block_by_block(
            base, facts, out=chosen.out, settings=settings, seed=chosen.seed, chat=chat, reporter=shown
        )
    print(*edited_facts_in_words(found.table("edited_facts")), sep="\n")  # noqa: T201


if __name__ == "__main__":
    sys.exit(main())
