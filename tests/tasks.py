"""A task for every way to detoxify."""

from __future__ import annotations

from conftest import make_instance

from mechinterp.methods.task import Task

INSTANCES = [make_instance(i) for i in range(3)]


TRAINED = {"steps": 1, "batch_size": 2, "max_length": 200}


UNLEARNED = {"steps": 1, "batch_size": 2, "warmup_steps": 0}


SETTINGS = {
    "sft": TRAINED,
    "dpo": TRAINED,
    "ext_sub": {**TRAINED, "gradient_accumulation": 1, "warmup_steps": 0, "lora": {"rank": 2, "alpha": 4}},
    **dict.fromkeys(("ga", "grad_diff", "ga_kl", "npo", "simnpo", "rmu", "random_label"), UNLEARNED),
    "memflex": {**UNLEARNED, "copies": 1},
    "ft_l": {"steps": 2},
    "dinm": {"steps": 2},
    "dinm_at_block": {"block": 1},
    "rome": {"steps": 2, "context_lengths": ()},
    "memit": {"steps": 2, "context_lengths": ()},
    "alphaedit": {"steps": 2, "context_lengths": (), "null_threshold": 1.0},
    "ft_m": {"steps": 2},
}


def make_task(**changes: object) -> Task:
    fields = {"instances": INSTANCES, "blocks": {0: 2, 1: 1, 2: 2}, "training": INSTANCES, "settings": SETTINGS}
    return Task(**{**fields, **changes})
