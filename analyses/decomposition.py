"""Erase or bypass, block by block: the change of the toxic write split into erasure and bypass.

python analyses/decomposition.py runs/seed0
"""

import pandas as pd
from common import compared, write_analysis

from mechinterp.runs.study import Study


def decomposition(study: Study) -> pd.DataFrame:
    """From the recorded evidence of every checkpoint."""
    return compared(study).tables["decomposition"]


if __name__ == "__main__":
    write_analysis(__doc__, decomposition, "decomposition")
