"""The study: a config, a seed and a run folder, and its stages from nothing to the report.

study          `Study`: what the stages leave, typed; running them
dependencies   which stages there are, and what each depends on
stages/        what each does, one module a stage
run            what a stage is given; the other modules read for it what earlier stages left
"""

from mechinterp.runs.study.study import Study

__all__ = ["Study"]
