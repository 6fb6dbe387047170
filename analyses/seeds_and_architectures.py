"""The main figures' numbers over seeds and architectures: runs the study for each, and writes one table of all.

    python analyses/seeds_and_architectures.py --out runs/robustness --seeds 0 1 2

Resumable like the study itself: a run that is up to date costs seconds; `--collect` reads finished runs and runs
nothing. Writes `robustness.csv`, `organisms.csv` and `robustness.md` (the tables of the README).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd
from scripts import Given, script

from mechinterp.cli.terminal import terminal
from mechinterp.data.storage.files import write_text
from mechinterp.data.storage.tables import write_table
from mechinterp.errors import InputError
from mechinterp.runs.config import load_config
from mechinterp.runs.study import Study

CONFIGS = {"mistral": "organism.yaml", "llama": "organism-llama.yaml", "gpt2": "organism-gpt2.yaml"}


RELAPSE = ("by_activations", "by_values", "by_both", "agrees")
"""Columns of `relapse_verdict.csv` beside the verdict."""


VERDICT = (
    *("where", "value_share", "value_share_low", "value_share_high", "change", "change_low", "change_high"),
    *("gone", "depth", "depth_low", "depth_high"),
    *("attack", "recovery", "recovery_low", "recovery_high", "excess", "excess_low", "excess_high"),
)
"""Columns of `verdict.csv`, both halves: where the change sits, and whether the behaviour is gone."""


def method_rows(study: Study, key: dict[str, object]) -> list[dict[str, object]]:
    """One row a method: Fig 5's rates, DS, the verdict, the local one along two directions (prompt_last), relapse."""
    mechanism = study.table("mechanism").set_index("method")
    defense = study.table("defense").set_index("method")
    verdicts = study.table("verdict").set_index("method")
    local = study.table("local_verdict").query("position == 'prompt_last'")
    relapse = study.table("relapse_verdict").set_index("method")
    rows = []
    for method in study.config.studied:
        row = {**key, "method": method, "ds_vanilla": defense.at["vanilla", "ds"], "ds": defense.at[method, "ds"]}
        for column in ("toxicity_reduction_rate", "null_z", "ill_conditioned", "activation_shift_rate"):
            row[column] = mechanism.at[method, column]
        for direction in ("probe", "answer"):
            found = local[(local["method"] == method) & (local["direction"] == direction)].iloc[0]
            row |= {f"{direction}_{name}": found[name] for name in ("erasure", "bypass", "erasure_share", "verdict")}
        row["relapse_verdict"] = relapse.at[method, "verdict"]
        row |= {f"relapse_{name}": relapse.at[method, name] for name in RELAPSE}
        row |= {name: verdicts.at[method, name] for name in VERDICT}
        rows.append(row)
    return rows


def organism_row(study: Study, key: dict[str, object]) -> dict[str, object]:
    """What the vanilla organism does, and how its probe and judge fare."""
    rates = study.table("organism").set_index("quantity")["rate"]
    probe = study.table("probe").set_index("direction").loc["toxic_minus_clean"]
    validity = study.table("validity").query("position == 'prompt_last'").set_index("direction")
    return {
        **key,
        **{str(quantity): rate for quantity, rate in rates.items()},
        "probe accuracy": probe["accuracy"],
        "judge accuracy": study.table("judge").at[0, "accuracy"],
        "AUROC of the write, probe": validity.at["probe", "auroc"],
        "AUROC of the write, answer": validity.at["answer", "auroc"],
        "toxic block": study.block,
    }


COLUMNS = {
    "architecture": "architecture",
    "seed": "seed",
    "method": "method",
    "ds_vanilla": "DS before",
    "ds": "DS",
    "toxicity_reduction_rate": "reduction of T",
    "null_z": "z",
    "ill_conditioned": "ill-conditioned",
    "activation_shift_rate": "activation shift",
    "answer_erasure": "erasure",
    "answer_bypass": "bypass",
    "answer_erasure_share": "erasure share",
    "answer_verdict": "verdict",
    "probe_erasure_share": "share, probe",
    "probe_verdict": "verdict, probe",
}
"""Columns of the README's table; erasure, bypass, share and verdict are along the answer direction if not said."""

RELAPSE_COLUMNS = {
    "architecture": "architecture",
    "seed": "seed",
    "method": "method",
    "answer_verdict": "decomposition",
    "relapse_verdict": "relapse test",
    "relapse_by_activations": "by activations",
    "relapse_by_values": "by values",
    "relapse_by_both": "by both",
    "relapse_agrees": "agrees",
}
"""Columns of the README's table of the relapse test: by each restoration, the share of the behaviour that returns."""


GONE_COLUMNS = {
    "architecture": "architecture",
    "seed": "seed",
    "method": "method",
    "value_share": "value matrices' share",
    "where": "where the change sits",
    "depth": "depth score",
    "attack": "the attack that tells most",
    "recovery": "brings back",
    "excess": "beyond the twin",
    "gone": "gone, or hidden",
}
"""Columns of the README's table of the verdict, the numbers with their intervals."""


def with_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """The same with each quantity that has an interval as text: value (low to high)."""
    shown = table.astype(object)
    for low in (str(column) for column in table.columns if str(column).endswith("_low")):
        name = low.removesuffix("_low")
        shown[name] = [
            "–" if pd.isna(value) else f"{value:.2f} ({below:.2f} to {above:.2f})"
            for value, below, above in table[[name, low, f"{name}_high"]].itertuples(index=False)
        ]
    return shown


def markdown(table: pd.DataFrame) -> str:
    """A table as Markdown, numbers with three digits."""

    def cell(value: object) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = [table.columns.tolist(), ["---"] * len(table.columns), *([cell(v) for v in row] for row in table.values)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


@script
def main(given: Given) -> None:
    """Run what is missing and collect."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/robustness"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--architectures", nargs="+", choices=list(CONFIGS), default=list(CONFIGS))
    parser.add_argument("--collect", action="store_true", help="only collect from finished runs")
    arguments = parser.parse_args(given)
    rows, organisms = [], []
    for seed in arguments.seeds:
        for architecture in arguments.architectures:
            config = load_config(Path(__file__).parent / "configs" / CONFIGS[architecture])
            study = Study(config, seed, arguments.out / f"{architecture}-seed{seed}")
            if arguments.collect:
                if not study.place_of("verdict").is_file():
                    continue
                study = Study.open(study.folder)
            else:
                with terminal() as shown:
                    shown.note(f"{architecture}, seed {seed}")
                    study.run(shown)
            key: dict[str, object] = {"architecture": architecture, "seed": seed}
            rows += method_rows(study, key)
            organisms.append(organism_row(study, key))
    if not rows:
        raise InputError(f"{arguments.out}: no run there is finished; leave --collect out")
    tables = pd.DataFrame(rows), pd.DataFrame(organisms)
    printed = [tables[0][list(columns)].rename(columns=columns) for columns in (COLUMNS, RELAPSE_COLUMNS)]
    printed.append(with_intervals(tables[0])[list(GONE_COLUMNS)].rename(columns=GONE_COLUMNS))
    printed.append(tables[1])
    write_table(arguments.out / "robustness.csv", tables[0])
    write_table(arguments.out / "organisms.csv", tables[1])
    write_text(
        arguments.out / "robustness.md",
        "\n".join(map(markdown, printed)),
    )
    sys.stdout.write((arguments.out / "robustness.md").read_text())


if __name__ == "__main__":
    sys.exit(main())
