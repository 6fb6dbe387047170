"""Erase or bypass: per method, direction and position, how much of the fall of the toxic write is erasure.

python analyses/verdict.py runs/seed0
"""

import pandas as pd
from common import compared, write_analysis

from mechinterp.runs.study import Study


def verdict(study: Study) -> pd.DataFrame:
    """From the recorded evidence of every checkpoint."""
    return compared(study).tables["verdict"]


if __name__ == "__main__":
    write_analysis(__doc__, verdict, "verdict")
