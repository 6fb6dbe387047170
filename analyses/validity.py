"""Are the directions in play: AUROC of the base's write, cosines with their null, effect of steering.

python analyses/validity.py runs/seed0
"""

import pandas as pd
from common import compared, write_analysis

from mechinterp.runs.study import Study


def validity(study: Study) -> pd.DataFrame:
    """From the recorded evidence of every checkpoint."""
    return compared(study).tables["validity"]


if __name__ == "__main__":
    write_analysis(__doc__, validity, "validity")
