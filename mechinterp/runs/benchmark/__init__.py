"""The benchmark: ways to detoxify, by their names, on the instances of a study."""

from mechinterp.runs.benchmark.benchmark import Benchmark
from mechinterp.runs.benchmark.harmless import HARMLESS_EDITS
from mechinterp.runs.benchmark.made import Made

__all__ = ["HARMLESS_EDITS", "Benchmark", "Made"]
