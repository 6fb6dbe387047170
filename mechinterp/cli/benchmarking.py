"""Ways to detoxify, by their names: what there are, and how they defend."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mechinterp.cli.common import refuse, reporting, say
from mechinterp.cli.options import Seed
from mechinterp.errors import InputError

commands = typer.Typer()


@commands.command()
def benchmark(
    method: Annotated[
        list[str] | None, typer.Option(help="Name of a way to detoxify; repeatable. --list has them.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML of a study; the embedded organism if not given.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder; runs/seedN, or runs/CONFIG-seedN, if not given.")
    ] = None,
    seed: Seed = 0,
    side_effects: Annotated[bool, typer.Option(help="Also ask harmless prompts, where the study has some.")] = True,
    show: Annotated[bool, typer.Option("--list", help="Say what ways there are, and end.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan of the study; nothing is done.")] = False,
) -> None:
    """Make checkpoints by several methods and let them answer the benchmark: one table, every answer kept.

    What is there already is not made or asked again. --out gets benchmark/benchmark.csv, and a folder per method with
    its edits or checkpoint (of SFT and DPO: checkpoints/) and every response. One process; the run folder is held.
    """
    from mechinterp.methods.registry import METHODS, find_method

    if show:
        for one in METHODS.values():
            say(f"{one.name:<20}{one.line}{' (an edit per instance)' if one.per_instance else ''}")
        return
    if not method:
        raise InputError("name at least one --method; --list has them")
    for name in method:
        find_method(name)
    import pandas as pd

    from mechinterp.data.storage.places import check_free
    from mechinterp.data.storage.tables import write_table
    from mechinterp.measures.intervals import Interval, is_end
    from mechinterp.runs.benchmark import Benchmark
    from mechinterp.runs.config import default_folder, default_study, load_config
    from mechinterp.runs.study import Study

    settings = default_study() if config is None else load_config(config)
    study = Study(settings, seed, out or default_folder(config, seed))
    if dry_run:
        from mechinterp.runs.planning.plan import make_plan

        plan = make_plan(study)
        plan.show(say)
        refuse(plan.problems)
        return
    check_free(study.folder / "benchmark" / "benchmark.csv")
    with reporting(goes_on=True) as terminal:
        bench, rows = Benchmark(study, terminal), []
        with bench.prepared(method):
            for name in dict.fromkeys(method):
                row = bench.evaluate(name).row()
                if side_effects:
                    for found in bench.side_effects(bench.make(name)).to_dict("records"):
                        name, rate = str(found["quantity"]), Interval(found["value"], found["low"], found["high"])
                        row |= rate.columns(name) | {f"{name}_n": found["n"]}
                rows.append(row)
            table = pd.DataFrame(rows)
            path = write_table(study.folder / "benchmark" / "benchmark.csv", table)
    hidden = ("suffix", "prefix", "n")
    shown = [c for c in map(str, table.columns) if not (is_end(c) or c.endswith("_n") or c in hidden)]
    say(f"{table[shown].set_index('method').T.to_string()}\ntables: {path.parent}")
