"""The audit of Eq. 6: how many test instances have their toxic layer at each block, under four distances.

Beside the table: the same by category (`..._by_category.csv`), and how often two distances name the same block
(`..._agreement.csv`).

python analyses/toxic_layer.py runs/seed0
"""

import pandas as pd
from common import write_analysis

from mechinterp.audit.location import agreement, histogram, locate
from mechinterp.runs.study import Study


def toxic_layer(study: Study) -> dict[str, pd.DataFrame]:
    """Every pair of responses is fed to the vanilla model alone."""
    vanilla = study.checkpoint("vanilla")
    located = locate(vanilla, study.instances("test"), truncate=study.config.truncate)
    return {
        "_by_category": histogram(located, vanilla.n_blocks, by="category"),
        "_agreement": agreement(located),
        "": histogram(located, vanilla.n_blocks),
    }


if __name__ == "__main__":
    write_analysis(__doc__, toxic_layer, "toxic_layer")
