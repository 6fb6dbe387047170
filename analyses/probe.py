"""The toxic probe of the vanilla model: held-out scores of each way to take a direction from it.

python analyses/probe.py runs/seed0
"""

import pandas as pd
from common import write_analysis

from mechinterp.audit.directions.probe_training import fit_probe
from mechinterp.runs.study import Study


def probe(study: Study) -> pd.DataFrame:
    """Mean residual stream of every comment, a logistic regression without bias, a tenth held out."""
    fitted = fit_probe(study.checkpoint("vanilla"), study.comments, seed=study.seed, final_norm=study.config.final_norm)
    return pd.DataFrame([vars(score) for score in fitted.scores]).rename(columns={"selection": "direction"})


if __name__ == "__main__":
    write_analysis(__doc__, probe, "probe")
