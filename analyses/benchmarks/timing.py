"""What every benchmark does: time several sides in turn in one process, print a table, and end with one line of JSON.

Machines are shared and clocks drift, so the sides take turns and the order is rotated every repeat: what slows the
machine down slows every side. A ratio is the median over repeats of the ratio within a repeat.
"""

from __future__ import annotations

import gc
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

Seconds = dict[str, list[float]]


def interleave(
    sides: Mapping[str, Callable[[], object]],
    repeats: int,
    *,
    warm_up: int = 1,
    settle: Callable[[], object] = lambda: None,
    before: Callable[[str], object] = lambda side: None,
) -> Seconds:
    """Time every side, in turns.

    Args:
        sides: name -> what is timed; what it returns is let go after the clock has stopped.
        repeats: measured turns of every side.
        warm_up: turns before that are not measured.
        settle: called before the clock starts and before it stops (`torch.cuda.synchronize` on a GPU).
        before: called with the side's name before each of its turns, untimed.

    Returns:
        Seconds of every measured turn by side, in the same order for all of them.
    """
    names = list(sides)
    seconds: Seconds = {name: [] for name in names}
    for turn in range(warm_up + repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()
            before(name)
            settle()
            started = time.perf_counter()
            result = sides[name]()
            settle()
            taken = time.perf_counter() - started
            del result
            if turn >= warm_up:
                seconds[name].append(taken)
    return seconds


def paired_ratio(seconds: Seconds, above: str, below: str) -> float:
    """Median over turns of the time of one side over that of another in the same turn."""
    return statistics.median(a / b for a, b in zip(seconds[above], seconds[below], strict=True))


def time_rows(seconds: Seconds) -> list[dict[str, object]]:
    """A row of the table for every side: median, fastest and slowest turn."""
    return [
        {
            "side": name,
            "median s": statistics.median(times),
            "fastest s": min(times),
            "slowest s": max(times),
            "turns": len(times),
        }
        for name, times in seconds.items()
    ]


def report(
    title: str,
    facts: Mapping[str, object],
    rows: Sequence[Mapping[str, object]],
    ratios: Mapping[str, float],
    targets: Mapping[str, str] | None = None,
) -> None:
    """Print what was measured; the very last line of standard output is a JSON object of the ratios.

    Args:
        title: what was measured.
        facts: on what: shapes, type, threads, whether files were in the page cache.
        rows: the table's rows; columns are those of all rows in order of first appearance, absent cells stay empty.
        ratios: the named numbers; one that is not finite becomes null in the JSON.
        targets: by the same names, `">= 20"` or `"<= 1.5"`; shown beside them, met or missed.
    """
    console = Console(width=140, highlight=False)
    console.print(f"\n{title}", style="bold")
    for name, fact in facts.items():
        console.print(f"  {name}: {_cell(fact)}", markup=False)
    if rows:
        table = Table()
        columns = list(dict.fromkeys(column for row in rows for column in row))
        for column in columns:
            table.add_column(column, justify="left" if column == columns[0] else "right")
        for row in rows:
            table.add_row(*(_cell(row.get(column, "")) for column in columns))
        console.print(table)
    summary = Table("ratio", "value", "wanted", "")
    for name, value in ratios.items():
        wanted = (targets or {}).get(name, "")
        summary.add_row(name, _cell(value), wanted, _verdict(value, wanted))
    console.print(summary)
    finite = {name: round(value, 4) if math.isfinite(value) else None for name, value in ratios.items()}
    console.file.write(json.dumps(finite) + "\n")  # not through rich, which would wrap it
    console.file.flush()


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _verdict(value: float, wanted: str) -> str:
    """Whether a value is on the wanted side of a bound such as `>= 20`."""
    if not wanted:
        return ""
    sign, _, bound = wanted.partition(" ")
    met = value >= float(bound) if sign == ">=" else value <= float(bound)
    return "met" if met else "MISSED"
