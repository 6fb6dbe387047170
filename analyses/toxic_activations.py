"""Activations of the most toxic value vectors over the first 20 tokens, on the same and on their own text.

python analyses/toxic_activations.py runs/seed0
"""

import pandas as pd
from common import compared, write_analysis

from mechinterp.runs.study import Study


def toxic_activations(study: Study) -> pd.DataFrame:
    """From the recorded evidence."""
    return compared(study).tables["toxic_activations"]


if __name__ == "__main__":
    write_analysis(__doc__, toxic_activations, "toxic_activations")
