"""What each stage of a study runs, by its name, besides those of the methods (`stages.treat`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mechinterp.models.progress import Reporter
from mechinterp.runs.study.run import Run
from mechinterp.runs.study.stages import (
    attack,
    circuits,
    compare,
    data,
    decode,
    defend,
    depth,
    locate,
    never,
    organism,
    origins,
    probe,
    probes,
    rates,
    record,
    relapse,
    report,
    taught,
    teach,
    vanilla,
)

MAKERS: Mapping[str, Callable[[Run, Reporter], None]] = {
    "data": data.make,
    "vanilla": vanilla.make,
    "teach": teach.make,
    "never": never.make,
    "organism": organism.make,
    "taught": taught.make,
    "probe": probe.make,
    "probes": probes.make,
    "locate": locate.make,
    "rates": rates.make,
    "record": record.make,
    "compare": compare.make,
    "origins": origins.make,
    "defend": defend.make,
    "relapse": relapse.make,
    "depth": depth.make,
    "attack": attack.make,
    "decode": decode.make,
    "circuits": circuits.make,
    "report": report.make,
}
