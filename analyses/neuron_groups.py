"""Which neurons carry the change of the toxic write, in four groups, against random directions.

python analyses/neuron_groups.py runs/seed0
"""

import pandas as pd
from common import compared, write_analysis

from mechinterp.runs.study import Study


def neuron_groups(study: Study) -> pd.DataFrame:
    """From the recorded evidence, under every definition of the groups."""
    return compared(study).tables["neuron_groups"]


if __name__ == "__main__":
    write_analysis(__doc__, neuron_groups, "neuron_groups")
