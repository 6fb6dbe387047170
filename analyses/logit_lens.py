"""The logit lens of the first tokens of unsafe and safe answers, base and every method.

python analyses/logit_lens.py runs/seed0
"""

import pandas as pd
from common import compared, write_analysis

from mechinterp.runs.study import Study


def logit_lens(study: Study) -> pd.DataFrame:
    """From the recorded evidence: logit and probability by block, with intervals over inputs."""
    return compared(study).tables["logit_lens"]


if __name__ == "__main__":
    write_analysis(__doc__, logit_lens, "logit_lens")
