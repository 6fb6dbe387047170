"""The table behind Fig 5: toxicity of the toxic region against the shift of its activations, per tuned checkpoint.

python analyses/mechanism.py runs/seed0
"""

import pandas as pd
from common import compared, write_analysis

from mechinterp.runs.study import Study


def mechanism(study: Study) -> pd.DataFrame:
    """From the recorded evidence of every checkpoint."""
    return compared(study).tables["mechanism"]


if __name__ == "__main__":
    write_analysis(__doc__, mechanism, "mechanism")
