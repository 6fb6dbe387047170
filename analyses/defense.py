"""Defense success and its generalisation, from the saved responses: judged again, not generated again.

python analyses/defense.py runs/seed0
"""

import pandas as pd
from common import write_analysis

from mechinterp.answers.defense import judge_again
from mechinterp.runs.study import Study


def defense(study: Study) -> pd.DataFrame:
    """Every response in `responses/METHOD.jsonl` gets the judge's score; a row per method, as in the run."""
    saved = (study.folder / "responses" / f"{method}.jsonl" for method in study.table("defense")["method"])
    return pd.DataFrame([judge_again(path, study.judge).row() for path in saved])


if __name__ == "__main__":
    write_analysis(__doc__, defense, "defense")
