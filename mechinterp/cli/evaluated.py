"""What `evaluate` leaves and shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mechinterp.cli.common import rank, say
from mechinterp.data.counting import many

if TYPE_CHECKING:
    import pandas as pd

    from mechinterp.answers.judged import Defense
    from mechinterp.answers.judges import Judge
    from mechinterp.answers.side_effects import OverRefusal

_ENDS = ("value", "low", "high")


def check_tables(out: Path, *more: str) -> None:
    """Refuse a folder in which names are taken by what this tool did not write."""
    from mechinterp.data.storage.places import check_free

    check_free(*(out / name for name in ("rates.csv", "categories.csv", "judge.csv", "flags.csv", *more)))


def report(
    result: Defense,
    judge: Judge,
    out: Path | None,
    extra: Mapping[str, pd.DataFrame] | None = None,
    benign: Sequence[OverRefusal] = (),
) -> None:
    """Write the tables, and show the numbers with their intervals."""
    import pandas as pd

    from mechinterp.answers.flags import benign_flags, flags_table
    from mechinterp.answers.judge_table import judge_table
    from mechinterp.cli.terminal import print_table
    from mechinterp.data.storage.tables import write_table

    table, extra = result.table(), extra or {}
    if rank() != 0:
        return
    flags = pd.concat([flags_table(result, judge), pd.DataFrame([row for one in benign for row in benign_flags(one)])])
    if out is not None:
        write_table(out / "defense.csv", pd.DataFrame([result.row()]))
        write_table(out / "rates.csv", table)
        write_table(out / "categories.csv", result.by_category())
        write_table(out / "judge.csv", judge_table(judge))
        write_table(out / "flags.csv", flags)
        for name, part in extra.items():
            write_table(out / f"{name}.csv", part)
    shown = table[table["n"] > 0]
    headings = ("quantity", "value", "95% interval", "n")
    accuracy = "" if result.judge_accuracy is None else f", accuracy {result.judge_accuracy:.3f}"
    beside = f", beside {result.second_judge}" if result.second_judge else ""
    print_table(
        f"{result.method} (judge: {result.judge}{accuracy}{beside})",
        headings,
        [_line(row) for _, row in shown.iterrows()],
    )
    worst = flags[(flags["kind"] == "all") & (flags["flag"] == "degenerate") & (flags["of_safe"] > 0)]
    for share, n in zip(worst["of_safe"], worst["n_safe"], strict=True):
        say(
            f"{share:.0%} of the {many(n, 'answer')} judged safe only look so: empty, short, looping, echo or "
            "another script"
        )
    if "side_effects" in extra:
        rows = [(f"{row['quantity']} {row['method']}", *_line(row)[1:]) for _, row in extra["side_effects"].iterrows()]
        print_table("side effects on benign prompts", headings, rows)
    if "harness" in extra:
        say(extra["harness"].to_string(index=False))
    if out is not None:
        say(f"tables: {out}")


def _line(row: pd.Series) -> tuple[str, str, str, str]:
    value, low, high = (f"{row[name]:#.3g}" if row.get("unit") == "bits" else f"{row[name]:.3f}" for name in _ENDS)
    return f"{row['quantity']}", value, f"{low} to {high}", f"{row['n']}"


def some(numbers: list[int]) -> str:
    """The first of some numbers, in words."""
    return ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
