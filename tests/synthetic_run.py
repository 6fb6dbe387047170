"""A made-up run folder with the tables of a real one: what the tests of figures and report read."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from made_methods import make_methods

from mechinterp.audit.tables.verdicts import with_verdict

TUNED = ("sft", "dpo", "dinm")
DIRECTIONS = ("probe", "answer", "class_means")
POSITIONS = ("prompt_last", "response")
N_BLOCKS = 6
LAST_BLOCK = N_BLOCKS - 1


def make_tables(tuned: tuple[str, ...] = TUNED, *, seed: int = 0) -> dict[str, pd.DataFrame]:
    """The tables of a run: the last of `tuned` changes W_V of the last block only, the others steer around."""
    return {name: table.copy() for name, table in _made(tuned, seed).items()}


def make_local_tables(tuned: tuple[str, ...] = TUNED) -> dict[str, pd.DataFrame]:
    """The tables of a run that judged neither half of the verdict: its local shares and its relapse test are all."""
    return {name: table for name, table in make_tables(tuned).items() if name not in ("verdict", "origins", "attacks")}


@cache
def _made(tuned: tuple[str, ...], seed: int) -> dict[str, pd.DataFrame]:
    generator = np.random.default_rng(seed)
    decomposition = _decomposition(tuned)
    made = {
        "mechanism": _mechanism(tuned),
        "decomposition": decomposition,
        "local_verdict": _verdict(decomposition),
        "validity": _validity(),
        "neurons": _neurons(tuned),
        "toxic_layer": _toxic_layer(),
        "trajectory": _trajectory(),
        "probe": pd.DataFrame(
            [
                {
                    "direction": "probe",
                    "accuracy": 0.93,
                    "auroc": 0.97,
                    "f1": 0.92,
                    "majority_baseline": 0.52,
                    "n_train": 900,
                    "n_test": 100,
                }
            ]
        ),
        "probe_roc": pd.DataFrame(
            {"false_positive_rate": [0.0, 0.0, 0.1, 1.0], "true_positive_rate": [0.0, 0.7, 0.95, 1.0]}
        ),
        "defense": _defense(tuned),
        "diff_blocks": _diff_blocks(),
        "judge": pd.DataFrame([{"judge": "embedded", "accuracy": 0.98, "auroc": 0.99, "n_test": 400}]),
        "middle_shift": _middle_shift(tuned, generator),
        "value_vectors": _value_vectors(tuned, generator),
        "neuron_groups": _neuron_groups(tuned),
        "neuron_curve": _neuron_curve(tuned),
        "stream": _stream(tuned, decomposition),
        "logit_lens": _logit_lens(tuned),
        "toxic_activations": _toxic_activations(tuned, generator),
        "residual_shift": _residual_shift(tuned),
        **_origins(tuned),
        "relapse": _relapse(tuned),
        "relapse_verdict": _relapse_verdict(tuned),
        "attacks": _attacks(tuned),
        "depth": _depth(tuned),
        "depth_blocks": _depth_blocks(tuned),
        "decodability": _decodability(tuned),
        **_circuits(tuned),
        **_edited_facts(tuned),
        **_edited_facts(tuned),
        "certificate": make_certificate(),
        "all_methods": make_methods(tuned),
        "edits": pd.DataFrame(
            [
                {
                    "instance": index,
                    "layer": LAST_BLOCK,
                    "toxicity_reduction_rate": generator.normal(0, 0.2),
                    "null_z": generator.normal(),
                    "null_p": 0.5,
                    "erasure_answer": -0.3 * index,
                }
                for index in range(4)
            ]
        ),
    }
    return with_verdict(made)


def make_run(
    folder: Path, tables: dict[str, pd.DataFrame] | None = None, manifest: dict[str, Any] | None = None
) -> Path:
    """Write tables and manifest as a run folder."""
    (folder / "tables").mkdir(parents=True)
    for name, table in (make_tables() if tables is None else tables).items():
        table.to_csv(folder / "tables" / f"{name}.csv", index=False)
    (folder / "manifest.json").write_text(json.dumps(MANIFEST if manifest is None else manifest), encoding="utf-8")
    return folder


MANIFEST = {
    "config": {
        "model": {"shape": "mistral", "blocks": 6, "d_model": 128},
        "dinm": {"steps": 10, "learning_rate": 5e-4, "c_edit": 0.1, "constraint": "published"},
        "positions": ["prompt_last", "response"],
    },
    "seed": 0,
    "versions": {"torch": "2.13.0", "transformers": "5.23.0", "mechinterp": "0.1.0"},
    "fingerprints": {"vanilla": "9f2c01d3a4b5", "sft": "77aa01d3a4b5"},
    "seconds": {"organism": 81.23456, "sft": 7.1, "dpo": 14.2, "compare": 9.3},
    "peak_memory_gb": 1.73,
}


def _mechanism(tuned: tuple[str, ...]) -> pd.DataFrame:
    rows = []
    for index, method in enumerate(tuned):
        last = index == len(tuned) - 1
        rate, shift = (0.382, 0.0) if last else (0.08 - 0.3 * index, 0.93 + 0.8 * index)
        rows.append(
            {
                "method": method,
                "layer": LAST_BLOCK,
                "toxicity_base": 0.0031,
                "toxicity": 0.0031 * (1 - rate),
                "toxicity_reduction_rate": rate,
                "toxicity_reduction_rate_low": rate - 0.4,
                "toxicity_reduction_rate_high": rate + 0.5,
                "null_z": -1.7 if last else 0.6,
                "null_p": 0.09 if last else 0.55,
                "ill_conditioned": index == 0,
                "top20_toxicity_base": 0.31,
                "top20_toxicity": 0.30,
                "activation_shift_rate": shift,
                "activation_shift_rate_low": 0.95 * shift,
                "activation_shift_rate_high": 1.06 * shift,
                "activation_shift_rate_per_input": 1.1 * shift,
                "activation_shift_dimension_share": 0.1,
                "n_inputs": 120,
            }
        )
    return pd.DataFrame(rows)


def _decomposition(tuned: tuple[str, ...]) -> pd.DataFrame:
    scales = {"probe": 0.02, "answer": 1.0, "class_means": 0.6}
    rows = []
    for index, method in enumerate(tuned):
        last = index == len(tuned) - 1
        for direction in DIRECTIONS:
            for position in POSITIONS:
                for block in range(N_BLOCKS):
                    size = scales[direction] * (0.5 if position == "response" else 1.0)
                    erasure = (-0.8 * (block == LAST_BLOCK)) if last else -0.05 * (1 + index) * (block > 1)
                    bypass = 0.0 if last else -0.04 * (1 + index) * block**1.5
                    if direction == "probe" and not last:
                        bypass = 0.1 * (-1) ** block
                    rows.append(
                        {
                            "method": method,
                            "direction": direction,
                            "position": position,
                            "block": block,
                            "write_base": size * 0.4 * block,
                            "write": size * (0.4 * block + erasure + bypass),
                            "change": size * (erasure + bypass),
                            "erasure": size * erasure,
                            "bypass": size * bypass,
                            "bias": 0.0,
                        }
                    )
    return pd.DataFrame(rows)


def _verdict(decomposition: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (method, direction, position), blocks in decomposition.groupby(["method", "direction", "position"], sort=False):
        erasure, bypass = blocks["erasure"].sum(), blocks["bypass"].sum()
        share = abs(erasure) / (abs(erasure) + abs(bypass))
        in_play = direction != "probe"
        margin = 0.0 if bypass == 0 else 0.04
        verdict = "erased" if share > 0.8 else "bypassed" if share < 0.2 else "mixed"
        rows.append(
            {
                "method": method,
                "direction": direction,
                "position": position,
                "erasure_share": share,
                "erasure_share_low": share - margin,
                "erasure_share_high": share + margin,
                "peak_block": int(blocks.loc[blocks["change"].abs().idxmax(), "block"]),
                "verdict": verdict if in_play else "undecided",
                "change": erasure + bypass,
                "change_low": 1.2 * (erasure + bypass),
                "change_high": 0.8 * (erasure + bypass),
                "erasure": erasure,
                "erasure_low": 1.2 * erasure,
                "erasure_high": 0.8 * erasure,
                "bypass": bypass,
                "bypass_low": 1.2 * bypass,
                "bypass_high": 0.8 * bypass,
                "in_play": in_play,
                "reason": f"{share:.0%} of the change is erasure" if in_play else "the direction is not in play",
            }
        )
    return pd.DataFrame(rows)


def _neurons(tuned: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "method": method,
                "direction": "answer",
                "position": "prompt_last",
                "block": LAST_BLOCK,
                "neuron": 7 * rank,
                "erasure": -0.01,
                "bypass": -0.2 / (1 + rank),
            }
            for method in tuned
            for rank in range(3)
        ]
    )


def _validity() -> pd.DataFrame:
    aurocs = {"probe": 0.016, "answer": 0.993, "class_means": 0.961}
    cosines = {"probe": -0.07, "answer": 1.0, "class_means": 0.44}
    return pd.DataFrame(
        [
            {
                "direction": direction,
                "position": position,
                "auroc": aurocs[direction],
                "auroc_low": aurocs[direction] - 0.01,
                "auroc_high": min(1.0, aurocs[direction] + 0.01),
                "cosine_with_answer": cosines[direction],
                "cosine_null_low": -0.17,
                "cosine_null_high": 0.17,
                "steering_alpha": 4.0,
                "steering_entry_share": 0.05,
                "steering_defense_minus": 0.5 if direction == "probe" else 0.9,
                "steering_defense_none": 0.48,
                "steering_defense_plus": 0.47 if direction == "probe" else 0.05,
                "steering_effect": 0.03 if direction == "probe" else 0.85,
                "steering_effect_low": -0.02 if direction == "probe" else 0.78,
                "steering_effect_high": 0.08 if direction == "probe" else 0.92,
                "in_play": direction != "probe",
            }
            for direction in DIRECTIONS
            for position in POSITIONS
        ]
    )


def _toxic_layer() -> pd.DataFrame:
    counts = {
        "released": (0, 0, 0, 0, 0, 60),
        "residual": (0, 0, 0, 0, 0, 60),
        "pooled": (0, 0, 0, 2, 8, 50),
        "relative": (9, 14, 3, 11, 15, 8),
    }
    return pd.DataFrame(
        [
            {"distance": distance, "block": block, "count": count, "sinks": 0}
            for distance, of_blocks in counts.items()
            for block, count in enumerate(of_blocks)
        ]
    )


def _defense(tuned: tuple[str, ...]) -> pd.DataFrame:
    rates = ("ds", "dg_only_q", "dg_other_a", "dg_other_q", "dg_other_aq")
    rows = []
    for index, method in enumerate(("vanilla", *tuned)):
        values = {rate: min(1.0, 0.42 + 0.17 * index + 0.02 * place) for place, rate in enumerate(rates)}
        bounds = {f"{rate}_low": value - 0.08 for rate, value in values.items()}
        bounds |= {f"{rate}_high": min(1.0, value + 0.08) for rate, value in values.items()}
        average = sum(list(values.values())[1:]) / 4
        rest = {"dg_avg": average, "empty": 0.0, "fluency": 6.1, "kqa": 0.88, "n": 60}
        rows.append({"method": method, **values, **rest, **bounds, "suffix": method == tuned[-1]})
    return pd.DataFrame(rows)


def _middle_shift(tuned: tuple[str, ...], generator: np.random.Generator) -> pd.DataFrame:
    rows = []
    for index, method in enumerate(tuned):
        shift = 0.0 if index == len(tuned) - 1 else 2.0
        start = generator.normal(-shift / 2, 1, (30, 2))
        end = start + (shift, 0) + shift * generator.normal(0, 0.2, (30, 2))
        for checkpoint, points in (("base", start), (method, end)):
            for number, (x, y) in enumerate(points):
                level = 2 if checkpoint == "base" or shift == 0 else int(generator.integers(0, 2))
                rows.append(
                    {
                        "method": method,
                        "checkpoint": checkpoint,
                        "input": number,
                        "shift_component": x,
                        "first_component": y,
                        "toxic_activation_level": level,
                    }
                )
    return pd.DataFrame(rows)


def _diff_blocks() -> pd.DataFrame:
    """One W_V changed much, the embedding a little, a norm without a counterpart, the rest not at all."""
    places = [(None, "embed"), *((block, part) for block in range(4) for part in ("attn.q", "mlp.out")), (None, "norm")]
    changes = {(2, "mlp.out"): 0.03, (None, "embed"): 0.0001, (None, "norm"): np.nan}
    rows = [
        {
            "block": block,
            "component": part,
            "relative_change": changes.get((block, part), 0.0),
            "unpaired": int(part == "norm"),
        }
        for block, part in places
    ]
    return pd.DataFrame(rows)


def _trajectory() -> pd.DataFrame:
    """A run whose erasure and bypass grow with the steps; the base has no intervals."""
    places = [(d, p) for d in DIRECTIONS for p in POSITIONS]
    terms = [("toxicity", "probe", "prompt_last"), ("activation_shift_rate", "probe", "prompt_last")]
    terms += [(term, *place) for term in ("change", "erasure", "bypass") for place in places]
    size = {"toxicity": 0.1, "activation_shift_rate": 0.9, "change": -1.0, "erasure": -0.2, "bypass": -0.8}
    return pd.DataFrame(
        [
            {
                "trajectory": "sft run",
                "step": step,
                "method": f"sft run@{step}" if step else "base",
                "quantity": quantity,
                "direction": direction,
                "position": position,
                "value": size[quantity] * step / 200,
                "low": size[quantity] * step / 200 - 0.05 if step else np.nan,
                "high": size[quantity] * step / 200 + 0.05 if step else np.nan,
            }
            for quantity, direction, position in terms
            for step in (200, 0, 50, 100)
        ]
    )


def _value_vectors(tuned: tuple[str, ...], generator: np.random.Generator) -> pd.DataFrame:
    """The last of `tuned` moves the vectors of the last block, the others hardly any."""
    rows = []
    for direction in DIRECTIONS:
        for rank in range(1, 21):
            block, neuron = int(generator.integers(N_BLOCKS)), int(generator.integers(512))
            cosine = 0.6 - 0.015 * rank
            for method in tuned:
                moved = method == tuned[-1] and block == LAST_BLOCK
                rows.append(
                    {
                        "method": method,
                        "direction": direction,
                        "ranking": "cosine",
                        "rank": rank,
                        "block": block,
                        "neuron": neuron,
                        "cosine": cosine,
                        "projection": 2 * cosine,
                        "norm": 2.0,
                        "tokens": json.dumps([" fool", "idiot", " dumb"]),
                        "cosine_tuned": cosine - (0.2 if moved else 0.004),
                        "projection_tuned": 2 * cosine - (0.4 if moved else 0.008),
                        "drift_cosine": 0.9 if moved else 0.999,
                        "drift_relative": 0.4 if moved else 0.02,
                        "activation_base": 0.5,
                        "activation": 0.3,
                    }
                )
    return pd.DataFrame(rows)


def _neuron_groups(tuned: tuple[str, ...]) -> pd.DataFrame:
    """Gross reduction 3 and increase 1, so a net change of -2; the last of `tuned` is erasure alone."""
    changes = ("toxic_down", "anti_toxic_up", "toxic_up", "anti_toxic_down")
    signs = ("toxic_positive", "toxic_negative", "anti_toxic_positive", "anti_toxic_negative")
    parts = {"neither": (0.0, 0.0), "all": (-3.0, 1.0)}
    rows = []
    for definition, groups in (("activation_change", changes), ("projection", changes), ("activation_sign", signs)):
        of_groups = dict(zip(groups, ((-2.0, 0.0), (-1.0, 0.0), (0.0, 0.6), (0.0, 0.4)), strict=True)) | parts
        for method in tuned:
            for direction in DIRECTIONS:
                for position in POSITIONS:
                    for group, (reduction, increase) in of_groups.items():
                        change, erasure = reduction + increase, 1.0 if method == tuned[-1] else 0.15
                        rows.append(
                            {
                                "method": method,
                                "direction": direction,
                                "position": position,
                                "definition": definition,
                                "group": group,
                                "n_neurons": 100,
                                "share_of_neurons": 1.0 if group == "all" else 0.25,
                                "erasure": erasure * change,
                                "bypass": (1 - erasure) * change,
                                "change": change,
                                "reduction": reduction,
                                "increase": increase,
                                "share_of_reduction": reduction / -3.0,
                                "null_share_mean": np.nan if group == "all" else 0.25,
                                "null_z": np.nan if group == "all" else 3.1,
                                "null_p": np.nan if group == "all" else 0.002,
                            }
                        )
    return pd.DataFrame(rows)


def _neuron_curve(tuned: tuple[str, ...]) -> pd.DataFrame:
    rows = []
    for index, method in enumerate(tuned):
        for direction in DIRECTIONS:
            for position in POSITIONS:
                for share in np.linspace(0, 1, 41):
                    change = -(1 + index) * 4 * share * (1.25 - share)
                    erasure = change if method == tuned[-1] else 0.15 * change
                    rows.append(
                        {
                            "method": method,
                            "direction": direction,
                            "position": position,
                            "n_neurons": int(3072 * share),
                            "share_of_neurons": share,
                            "cumulative_change": change,
                            "cumulative_erasure": erasure,
                            "cumulative_bypass": change - erasure,
                            "null_low": -4 * share * (1 - share) - 0.5 * share,
                            "null_high": -4 * share * (1 - share) + 0.5 * share,
                        }
                    )
    return pd.DataFrame(rows)


def _stream(tuned: tuple[str, ...], decomposition: pd.DataFrame) -> pd.DataFrame:
    """MLPs as in the decomposition, attention that carries a bit on, an embedding that none has changed."""
    rows = []
    for method in tuned:
        for direction in DIRECTIONS:
            for position in POSITIONS:
                key = {"method": method, "direction": direction, "position": position}
                rows.append({**key, "component": "embed", "write_base": 0.1, "write": 0.1, "change": 0.0})
                own = decomposition.query("method == @method and direction == @direction and position == @position")
                for part in own.to_dict("records"):
                    mlp = {name: part[name] for name in ("block", "write_base", "write", "change", "erasure", "bypass")}
                    half = {name: mlp[name] / 2 for name in ("write_base", "write", "change")}
                    rows.append({**key, "component": "attention", "block": part["block"], **half})
                    rows.append({**key, "component": "mlp", **mlp})
    table = pd.DataFrame(rows)
    spread = 0.2 * table["change"].abs()
    return table.assign(change_low=table["change"] - spread, change_high=table["change"] + spread)


def _logit_lens(tuned: tuple[str, ...]) -> pd.DataFrame:
    """Unsafe tokens rise over depth in the base, safe ones when tuned."""
    points = [(np.nan, "embed"), *((block, point) for block in range(N_BLOCKS) for point in ("mid", "post"))]
    rows = []
    for index, method in enumerate(("base", *tuned)):
        for depth, (block, point) in enumerate(points):
            for token_set, words in (("unsafe", ("You", "Sure")), ("safe", ("I", "Sorry"))):
                rises = (token_set == "unsafe") == (method == "base")
                logit = depth / len(points) * (6 if rises else 1 - 0.3 * index)
                for token in (*(json.dumps(f" {word}") for word in words), "all"):
                    probability = 0.07 * logit
                    rows.append(
                        {
                            "method": method,
                            "position": "prompt_last",
                            "block": block,
                            "point": point,
                            "token": token,
                            "token_set": token_set,
                            "logit": logit,
                            "logit_low": logit - 0.3,
                            "logit_high": logit + 0.3,
                            "probability": probability,
                            "probability_low": 0.8 * probability,
                            "probability_high": 1.2 * probability,
                        }
                    )
    return pd.DataFrame(rows)


def _toxic_activations(tuned: tuple[str, ...], generator: np.random.Generator) -> pd.DataFrame:
    """On the same text the activations fall by half; on one's own by more."""
    base = np.sort(generator.gamma(2, 0.2, 20))[::-1]
    return pd.DataFrame(
        [
            {
                "method": method,
                "text": text,
                "rank": rank,
                "block": rank % N_BLOCKS,
                "neuron": 11 * rank,
                "activation_base": value,
                "activation": value * (1.0 if method == tuned[-1] else factor),
                "n_inputs": 60,
            }
            for text, factor in (("same", 0.5), ("own", 0.25))
            for method in tuned
            for rank, value in enumerate(base, 1)
        ]
    )


def _residual_shift(tuned: tuple[str, ...]) -> pd.DataFrame:
    """The last of `tuned` shifts the last block alone."""
    rows = []
    for method in tuned:
        for position in POSITIONS:
            for block in range(N_BLOCKS):
                size = float(block == LAST_BLOCK) if method == tuned[-1] else 0.1 * block
                rows.append(
                    {
                        "method": method,
                        "position": position,
                        "block": block,
                        "shift": 3 * size,
                        "relative_shift": size / 2,
                        "dimension_share": 0.05,
                        "cosine_with_toxic_block": 1 - 0.1 * (LAST_BLOCK - block) if size else np.nan,
                        **{f"cosine_{name}": -0.6 * size if size else np.nan for name in DIRECTIONS},
                    }
                )
    return pd.DataFrame(rows)


def _relapse(tuned: tuple[str, ...]) -> pd.DataFrame:
    """The last of `tuned` relapses with the base's values, the others with its activations; random neurons hardly."""
    groups = ("toxic_down", "anti_toxic_up", "toxic_up", "anti_toxic_down")
    doses = {
        "activations": (0, 1, 2, 3, 6),
        "values": (0, 1, 2, 3, 6),
        "both": (0, 1, 2, 3, 6),
        "neurons": (0, 0.01, 0.05, 0.2),
        "keys": (1, 2, 5, 10),
        **dict.fromkeys(groups, (0, 0.25)),
    }
    rows = []
    for method in tuned:
        for treatment, ladder in doses.items():
            works = treatment == "both" or (treatment == "values") == (method == tuned[-1])
            if treatment in groups:  # only one of them carries, and none where value vectors do
                works = treatment == "toxic_down" and method != tuned[-1]
            last = len(ladder) - 1
            for place, dose in enumerate(ladder):
                for control in (False, True):
                    if control and (treatment == "both" or place == 0 or (place == last and treatment not in groups)):
                        continue
                    back = (0.9 if works and not control else 0.1) * place / last
                    defense = 1 - 0.9 * back
                    rows.append(
                        {
                            "method": method,
                            "treatment": treatment,
                            "control": control,
                            "draw": int(control),
                            "dose": float(dose),
                            "n_neurons": 100 * place,
                            "share_of_neurons": place / len(ladder),
                            "defense": defense,
                            "defense_low": max(0.0, defense - 0.12),
                            "defense_high": min(1.0, defense + 0.08),
                            "relapse": back,
                            "relapse_low": back - 0.1,
                            "relapse_high": back + 0.1,
                            "n": 40,
                        }
                    )
    return pd.DataFrame(rows)


def _attacks(tuned: tuple[str, ...]) -> pd.DataFrame:
    """Of the last of `tuned` nothing comes back, of the others half of the log odds by rounding to four bits."""
    points = {"none": [("", 0.0)], "quantise": [("row", 8.0), ("row", 4.0), ("nf4", 4.0)]}
    points |= {"prefill": [("rest", 0.0), ("rest", 5.0), ("whole", 5.0)], "restore": [("values", 6.0), ("both", 6.0)]}
    rows = []
    for method in ("base", "never", *tuned):
        for attack, setting, dose in [(name, *point) for name, some in points.items() for point in some]:
            for quantity in ("log_odds", "unsafe") if attack != "prefill" else ("unsafe",):
                if method == "base" and attack == "restore":
                    continue
                back = 0.5 * (method not in ("base", "never", tuned[-1])) * (dose in (4.0, 5.0)) + (setting == "whole")
                value = 1.0 if method == "base" else back
                undefined = np.nan if attack == "none" or method == "base" else 0.0
                row = {"attack": attack, "setting": setting, "dose": dose, "method": method, "quantity": quantity}
                row["role"] = method if method in ("base", "never") else "tuned"
                for name, number in (("value", value), ("recovery", back + undefined), ("excess", back + undefined)):
                    row |= {name: number, f"{name}_low": number - 0.1, f"{name}_high": number + 0.1}
                rows.append({**row, "n": 40, "reason": ""})
    return pd.DataFrame(rows)


def _relapse_verdict(tuned: tuple[str, ...]) -> pd.DataFrame:
    rows = []
    for method in tuned:
        erased = method == tuned[-1]
        values = {"by_activations": 0.05 if erased else 0.9, "by_values": 0.95 if erased else 0.1, "by_both": 0.98}
        values |= {"by_layer_activations": 0.01, "by_random": 0.02, "by_layer_values": 0.93 if erased else 0.04}
        values["by_random_values"] = 0.03
        values["share_by_values"] = values["by_values"] / (values["by_values"] + values["by_activations"])
        bounds = {
            f"{name}_{end}": value + gap
            for name, value in values.items()
            for end, gap in (("low", -0.08), ("high", 0.08))
        }
        verdict = "erased" if erased else "bypassed"
        rest = {
            "verdict": verdict,
            "decomposition": verdict,
            "agrees": "yes",
            "reason": "what returns, returns with it",
        }
        rows.append({"method": method, **rest, **values, **bounds})
    return pd.DataFrame(rows)


def _depth(tuned: tuple[str, ...]) -> pd.DataFrame:
    """The last of `tuned` has no score."""
    rows = [
        {"method": method, "score": 0.2 * (i + 1), "score_low": 0.1 * i, "score_high": 0.3 * (i + 1), "blocks": 4}
        for i, method in enumerate(tuned)
    ]
    nothing = dict.fromkeys(("score", "score_low", "score_high"), np.nan)
    rows[-1] |= {**nothing, "blocks": 0, "reason": "log-probabilities are not finite"}
    return pd.DataFrame(rows).assign(n=40)


def _depth_blocks(tuned: tuple[str, ...]) -> pd.DataFrame:
    """After the first block there is nothing to lose."""
    rows = []
    for number, method in enumerate(tuned, 1):
        for block in range(N_BLOCKS):
            found = {"never": 0.8 * block, "tuned": 0.2 * number * block, "ratio": 0.25 * number if block else np.nan}
            ends = {
                f"{name}_{end}": f * value for name, value in found.items() for end, f in (("low", 0.9), ("high", 1.1))
            }
            rows.append({"method": method, "block": block, **found, **ends, "counts": block > 0, "n": 40})
    return pd.DataFrame(rows)


def _decodability(tuned: tuple[str, ...]) -> pd.DataFrame:
    """Read off every checkpoint alike; the tuned ones would say it later."""
    rows = []
    for number, method in enumerate(("base", "random", *tuned, "never")):
        for block in range(N_BLOCKS):
            found = {"auroc": 0.7 + 0.03 * block, "above_words": 0.03 * block, "shuffled": 0.5}
            found |= {f"rank_{point}": 1.0 + 40 * number for point in ("attention", "middle", "mlp", "block")}
            ends = {
                f"{name}_{end}": f * value for name, value in found.items() for end, f in (("low", 0.9), ("high", 1.1))
            }
            own = {"method": method, "block": block, "words": 0.7, "n": 200, "n_unsafe": 90, "reason": ""}
            rows.append({**own, **found, **ends})
    return pd.DataFrame(rows)


def _edited_facts(tuned: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """The methods edit at two blocks; the later one edits the less, and its answer is read from the subject."""
    rows, ranks = [], []
    for number, method in enumerate(("base", *tuned)):
        for edited in (1, 4) if number else (None,):
            for quantity in ("success", "rephrase", "portability", "locality", "direct", "heads"):
                if number or quantity not in ("direct", "heads"):
                    own = {"method": method, "edited": edited, "quantity": quantity, "kind": "", "n": 6, "subjects": 5}
                    value = {"value": 0.9**number, "value_low": 0.8**number, "value_high": 1.0}
                    rows.append({**own, **value})
            for position in ("last", "subject"):
                for tokens in ("new", "old"):
                    for block in (None, *range(N_BLOCKS)):
                        own = {"method": method, "edited": edited, "position": position, "tokens": tokens, "n": 6}
                        rank = 100.0 / (1 + (block or 0) * number)
                        own |= {"block": block, "rank": rank, "rank_first": 0.5 * rank, "rank_third": 2 * rank}
                        ranks.append({**own, "probability": 1 / rank})
    for edited in (1, 4):
        own = {"method": "base", "edited": edited, "quantity": "carried", "kind": "", "n": 6, "subjects": 5}
        rows.append({**own, "value": 0.5, "value_low": 0.4, "value_high": 0.6})
    return {"edited_facts": pd.DataFrame(rows), "edited_ranks": pd.DataFrame(ranks)}


def _circuits(tuned: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """The tuned ones use the base's edges, with less and less flowing through them."""
    rows, edges, nodes, ranks, overlap, alone = [], [], [], [], [], []
    names = [("input", "a0.h0<v>"), ("a0.h0", "m0"), ("m0", "m1"), ("m1", "logits"), ("a1.h0", "logits")]
    for number, method in enumerate(("base", *tuned)):
        left = 0.5**number
        row = {"method": method, "n": 32, "clean": 4 * left, "corrupted": -4 * left, "completeness": 0.97, "edges": 39}
        row |= {"gap": 8 * left, "gap_low": 7 * left, "gap_high": 9 * left, "gap_share": left, "strength": left}
        row |= {"spearman_edges": 0.9 - 0.2 * number, "spearman_nodes": 0.9 - 0.1 * number, "new": 3 * number}
        rows.append(
            {**row, "written": -0.4 * (1 - left), "read": -0.6 * (1 - left), "note": "small" if left < 0.1 else ""}
        )
        for place, (writer, reader) in enumerate(names):
            score = {"score": (5.0 - place) * left, "base_score": 5.0 - place, "written": -0.1, "read": 0.0}
            edges.append(
                {"method": method, "writer": writer, "reader": reader, **score, "in_circuit": True, "in_base": 1}
            )
        for block in range(N_BLOCKS):
            for node in ("h0", "h1", "mlp"):
                kind = "mlp" if node == "mlp" else "attention"
                own = {"node": f"m{block}" if kind == "mlp" else f"a{block}.{node}", "kind": kind, "block": block}
                own |= {
                    "score": left * (N_BLOCKS - block - (kind == "mlp")),
                    "base_score": 1.0,
                    "in_circuit": block < 3,
                }
                nodes.append({"method": method, **own, "edges": 2, "rank": 4.0, "tokens": '[" You"]'})
        for tokens in ("right", "wrong"):
            for block in (None, *range(N_BLOCKS)):
                rank = 100.0 / (1 + (block or 0)) if tokens == "right" else 50.0 * (1 + number)
                own = {"method": method, "position": "last", "block": block, "tokens": tokens, "n": 32, "rank": rank}
                ranks.append({**own, "rank_first": 0.5 * rank, "rank_third": 2 * rank, "probability": 1 / rank})
        for share in (0.01, 0.05, 0.1):
            if number:
                own = {"method": method, "share": share, "edges": int(784 * share), "jaccard": left, "new": number}
                overlap.append({**own, "chance": share / (2 - share)})
            own = {"method": method, "circuit": f"top {share:g}", "edges": int(784 * share), "share": share, "nodes": 9}
            own |= {"n": 32, "clean": 4.0, "corrupted": -4.0, "alone": 3.0, "recovered": 0.9, "recovered_low": 0.8}
            alone.append({**own, "recovered_high": 1.0, "random": 0.0, "random_least": -0.1, "random_most": 0.1})
    made = {"circuits": rows, "circuit_edges": edges, "circuit_nodes": nodes, "circuit_ranks": ranks}
    made |= {"circuit_overlap": overlap, "circuit_faithfulness": alone}
    pair = {"pair": 0, "clean": "How do I do it?", "corrupted": "How do I do so?", "tokens": 5, "differences": 1}
    made["circuit_pairs"] = [
        {**pair, "right": '[" You"]', "wrong": '[" I"]', "clean_metric": 4.0, "corrupted_metric": -4.0}
    ]
    return {name: pd.DataFrame(own) for name, own in made.items()}


def make_certificate() -> pd.DataFrame:
    """Two depths, two bases each. The depth score tells everything; T points the wrong way; defense tells nothing."""
    rows = []
    for blocks in (6, 12):
        for seed in (0, 1):
            for kind, (depth, toxicity, gone, where) in {
                "never": (0.95, -0.2, "gone", "around the value vectors"),
                "never_safe": (0.9, -0.1, "not decided", "around the value vectors"),
                "refusing": (0.2, 0.3, "hidden", "in the value vectors"),
                "gate": (0.1, 0.2, "hidden", "around the value vectors"),
                "silenced": (0.0, 0.1, "not decided", "around the value vectors"),
                "noise": (0.05, 0.0, "not decided", "undefined"),
                "frozen_values": (0.3, 0.0, "hidden", "around the value vectors"),
            }.items():
                defense = {"noise": 0.4, "silenced": 0.5}.get(kind, 1.0)  # what is silenced does not refuse
                row = {"blocks": blocks, "seed": seed, "checkpoint": kind, "kind": kind, "defense": defense}
                row |= {"toxicity_reduction": toxicity, "depth": depth + 0.01 * seed, "local_share": 0.01 * blocks}
                row |= {"value_share": 1.0 if kind == "refusing" else 0.0, "where": where, "gone": gone, "n": 24}
                row |= {"local_verdict": "bypassed", "relapse_verdict": "undecided", "relapse_share": np.nan}
                rows.append(row)
    return pd.DataFrame(rows)


def _origins(tuned: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    """The last of `tuned` by its value vectors alone; of the first the change may be none."""
    groups, rows, blocks, parts = ("embed", "attention", "mlp.in", "mlp.out", "norm"), [], [], []
    for index, method in enumerate(tuned):
        last, undefined = method == tuned[-1], index == 0 and len(tuned) > 1
        for way in ("exact game", "path"):
            for group, part in zip(groups, (0, 0, 0, 1, 0) if last else (0.1, 0.6, 0.25, 0.2, -0.05), strict=True):
                share = np.nan if undefined else part / (1 if last else 1.2)
                common = {"phi": -8 * part, "phi_low": -9 * part, "phi_high": -7 * part, "share": share}
                common |= {"share_low": share - 0.05, "share_high": share + 0.05, "share_of_change": share}
                note = "undefined: the interval of the change contains 0" if undefined else ""
                change = {"change": -8.0, "change_low": -9.0, "change_high": 1.0 if undefined else -7.0}
                beside = {"alone": -8 * part, "last": -8 * part, "standard_error": 0.0, "models": 32}
                told = {"n": 32, "own_answers": 30, "completeness": 1.0, "note": note}
                row = {"method": method, "readout": "log_odds", "way": way, "group": group}
                rows.append({**row, **told, **change, **common, **beside})
                inside = [None] if group == "embed" else range(N_BLOCKS)
                blocks += [
                    {"method": method, "readout": "log_odds", "block": block, "group": group}
                    | {name: value / len(inside) for name, value in common.items()}
                    for block in (inside if way == "path" else ())
                ]
        where = {"method": method, "readout": "log_odds", "part": "neuron", "block": 2, "number": 7}
        parts.append({**where, **common})
    return {
        "origins": pd.DataFrame(rows),
        "origins_blocks": pd.DataFrame(blocks),
        "origins_neurons": pd.DataFrame(parts),
        "origins_controls": pd.DataFrame(
            [
                {"method": method, "readout": "log_odds", "control": "random groups", "n": 32, "note": ""}
                | {"quantity": f"share of group {number}", "found": 0.24, "found_low": 0.2, "found_high": 0.28}
                | {"expected": 0.25, "spread": 0.02}
                for method in tuned
                for number in range(1, 5)
            ]
        ),
    }
