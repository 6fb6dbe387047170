"""Who writes along each direction: embedding, attention and MLP of every block, base and tuned.

python analyses/stream.py runs/seed0
"""

import pandas as pd
from common import compared, write_analysis

from mechinterp.runs.study import Study


def stream(study: Study) -> pd.DataFrame:
    """From the recorded evidence; the parts sum to the stream before the final norm."""
    return compared(study).tables["stream"]


if __name__ == "__main__":
    write_analysis(__doc__, stream, "stream")
