"""The study: a config, a seed and a run folder, and its stages from nothing to the report.

study       `Study`: what the stages leave, typed; which stages there are, and running them
making      the stages that make checkpoints, probe, toxic layer and edits
measuring   the stages that record, compare, ask and report
"""

from mechinterp.config import METHODS
from mechinterp.study.study import Study

__all__ = ["METHODS", "Study"]
