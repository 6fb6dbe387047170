"""The most toxic value vectors of the base, and how far each drifted.

python analyses/value_vectors.py runs/seed0
"""

import pandas as pd
from common import compared, write_analysis

from mechinterp.runs.study import Study


def value_vectors(study: Study) -> pd.DataFrame:
    """From the recorded evidence, by both rankings."""
    return compared(study).tables["value_vectors"]


if __name__ == "__main__":
    write_analysis(__doc__, value_vectors, "value_vectors")
