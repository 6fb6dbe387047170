"""The relapse test: what of the vanilla model, put back, brings the unsafe behaviour back into each checkpoint.

python analyses/relapse.py runs/seed0
"""

import pandas as pd
from common import write_analysis

from mechinterp.audit.relapse.results import RelapseTest, decomposed_verdicts, relapse_tables
from mechinterp.runs.study import Study


def relapse(study: Study) -> dict[str, pd.DataFrame]:
    """From the saved answers, judged again, not generated again; beside relapse.csv, relapse_verdict.csv."""
    tests = [RelapseTest.load(study.folder / "relapse" / method).judged(study.judge) for method in study.config.studied]
    found = relapse_tables(tests, decomposed_verdicts(study.table("verdict")))
    return {"": found["relapse"], "_verdict": found["relapse_verdict"]}


if __name__ == "__main__":
    write_analysis(__doc__, relapse, "relapse")
