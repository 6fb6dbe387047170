"""The settings of a study small enough for tests."""

from __future__ import annotations

from pathlib import Path

import yaml
from stand_ins import stand_ins

from mechinterp.runs.config import load_config
from mechinterp.runs.study import Study

REPOSITORY = Path(__file__).parent.parent


SMALL = {
    "corpus": {"questions_per_category": 6, "attacks_per_split": 12, "n_documents": 600, "n_comments": 200},
    "organism": {
        "n_layers": 3,
        "d_model": 32,
        "n_heads": 2,
        "d_mlp": 72,
        "vocab_size": 1000,
        "steps": 140,
        "batch_size": 6,  # few rows and a high rate: a third of the time, and unsafe answers as well as safe ones
        "learning_rate": 8e-3,
    },
    "never": True,
    "sft": {"steps": 4, "batch_size": 4, "learning_rate": 1e-3, "max_length": 256},
    "dpo": {"steps": 4, "batch_size": 4, "learning_rate": 1e-3, "max_length": 256},
    "dinm": {"learning_rate": 5e-3, "steps": 3},
    "edit_instances": 3,
    "knowledge_questions": 4,
    "max_new_tokens": 6,
    "comparison": {"max_new_tokens": 6, "steering_inputs": 8, "middle_inputs": 6, "null_draws": 8},
    "relapse": {"prompts": 6, "neuron_shares": [0.05], "key_factors": [5.0]},
    "origins": {"prompts": 4, "tokens": 4, "nodes": 2, "most_nodes": 0},
}


def make_study(runs: Path) -> None:
    """The study from beginning to end, in `seed0` below a folder of runs, with its config beside it.

    Its figures are stand-ins, as in the tests: a lesson renders those of a comparison of the same checkpoints.
    """
    (runs / "small.yaml").write_text(yaml.safe_dump(SMALL))
    with stand_ins():
        Study(load_config(runs / "small.yaml"), 0, runs / "seed0").run()
