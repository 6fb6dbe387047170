"""How far the residual stream moved at every block, and which way.

python analyses/residual_shift.py runs/seed0
"""

import pandas as pd
from common import compared, write_analysis

from mechinterp.runs.study import Study


def residual_shift(study: Study) -> pd.DataFrame:
    """From the recorded evidence."""
    return compared(study).tables["residual_shift"]


if __name__ == "__main__":
    write_analysis(__doc__, residual_shift, "residual_shift")
