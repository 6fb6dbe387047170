"""Sinks in texts: found where they were planted, and left out of means, lengths, doses, probes and a study's layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from comparisons import SETTINGS, AlternatingJudge, make_probe
from conftest import N_BLOCKS, make_instance
from test_massive import DIMENSION, planted

from mechinterp.audit.directions.probe_training import fit_probe
from mechinterp.audit.evidence import Baseline, gather_evidence, prepare_baseline
from mechinterp.data.comments import Comment
from mechinterp.data.safeedit import write_safeedit
from mechinterp.errors import InputError
from mechinterp.models.names import h_down, resid_post
from mechinterp.models.passes.recorded import Recording
from mechinterp.models.passes.recording import record, record_positions
from mechinterp.models.passes.sinks import Sinks
from mechinterp.models.progress import Silent
from mechinterp.models.text.tokens import encode
from mechinterp.runs.config import DataFiles, StudyConfig
from mechinterp.runs.study.run import Run
from mechinterp.runs.study.stages import locate

TEXTS = ["Zap you, Zoo", "no such thing here at all", "Z", "a Z at last Z"]
HOOK = resid_post(1)


def by_hand(checkpoint, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The stream after block 1, and which tokens are none of the planted."""
    (encoded,) = encode(checkpoint.tokenizer, [text], max_length=256)
    ids = torch.tensor([list(encoded.ids)])
    with torch.no_grad():
        states = checkpoint.model(input_ids=ids, output_hidden_states=True).hidden_states[2][0].double()
    (number,) = checkpoint.tokenizer.encode("Z", add_special_tokens=False)
    kept = ids[0] != number
    return states, kept if kept.any() else ~kept


def test_found_where_they_stand_whatever_shares_the_batch() -> None:
    checkpoint = planted("Z")
    texts = encode(checkpoint.tokenizer, TEXTS, max_length=256)
    found = Sinks.of(checkpoint, [*texts, texts[0]])
    (number,) = checkpoint.tokenizer.encode("Z", add_special_tokens=False)
    for text in texts:
        assert found.at(text.ids) == tuple(i for i, token in enumerate(text.ids) if token == number)
        assert Sinks.of(checkpoint, [text]).at(text.ids) == found.at(text.ids)
    assert Sinks.from_labels(found.labels()) == found
    assert not any(Sinks.of(planted(None), texts).positions.values())  # the control
    with pytest.raises(InputError, match="was not read for sinks"):
        found.at([1, 2, 3])


@pytest.mark.parametrize("side", ["left", "right"])
def test_means_and_lengths_are_over_the_other_tokens(side: str, tmp_path: Path) -> None:
    checkpoint = planted("Z")
    given = {"lengths": [HOOK], "keep": [HOOK], "position": "mean", "padding_side": side}
    found, plain = (record(checkpoint, TEXTS, [HOOK], without_sinks=without, **given) for without in (True, False))
    for i, text in enumerate(TEXTS):
        states, kept = by_hand(checkpoint, text)
        torch.testing.assert_close(found.inputs[HOOK][i].double(), states[kept].mean(0), rtol=1e-4, atol=1e-4)
        assert float(found.lengths[HOOK][i]) == pytest.approx(float(states[kept].norm(dim=1).mean()), rel=1e-4)
        for recording, taken in ((found, states[kept]), (plain, states)):
            share = taken.square().max() / taken.square().sum()
            assert float(recording.entry_shares[HOOK][i]) == pytest.approx(float(share), rel=1e-4)
    assert (found.table["dimension_share"] > 0.9).all()  # one text is nothing but a sink, and keeps it
    assert (found.without_sinks, plain.without_sinks) == (True, False)
    again = Recording.load(found.save(tmp_path / "recording.safetensors"))
    assert again.without_sinks
    assert torch.equal(again.entry_shares[HOOK], found.entry_shares[HOOK])


def test_without_a_sink_nothing_changes_by_a_bit() -> None:
    checkpoint = planted(None)
    hooks = [HOOK, h_down(0)]
    plain, found = (record(checkpoint, TEXTS, hooks, position="mean", without_sinks=out) for out in (False, True))
    assert all(torch.equal(plain.groups[hook], found.groups[hook]) for hook in hooks)


def test_those_of_another_checkpoint_are_left_out_in_its_place() -> None:
    base, other = planted("Z"), planted(None)
    texts = encode(base.tokenizer, TEXTS, max_length=256)
    found = record_positions(other, TEXTS, [HOOK], ["mean"], keep=[HOOK], without_sinks=Sinks.of(base, texts))["mean"]
    for i, text in enumerate(TEXTS):
        states, kept = by_hand(other, text)
        torch.testing.assert_close(found.inputs[HOOK][i].double(), states[kept].mean(0), rtol=1e-4, atol=1e-5)


def test_a_comparison_leaves_the_bases_sinks_out_of_doses_and_shifts(tmp_path: Path) -> None:
    base, tuned = planted("Z"), planted("Z", value=4000.0)
    instances = [make_instance(i, unsafe_generation=f"Do it Z {i}") for i in range(6)]
    settings = SETTINGS.model_copy(update={"generated": 2, "text": "both"})

    def prepared(without: bool) -> Baseline:
        given = {"block": N_BLOCKS - 1, "seed": 0, "settings": settings, "without_sinks": without}
        return prepare_baseline(base, instances, make_probe(base), AlternatingJudge(), **given)

    plain, left_out = prepared(False), prepared(True)
    key = ("probe", "response")
    assert plain.steering[key].entry_share > 0.9 > left_out.steering[key].entry_share
    assert plain.steering[key].alpha > 10 * left_out.steering[key].alpha
    assert plain.inputs.fingerprint != left_out.inputs.fingerprint
    again = Baseline.load(left_out.save(tmp_path / "baseline"))
    assert again.inputs.fingerprint == left_out.inputs.fingerprint
    assert again.steering[key].entry_share == left_out.steering[key].entry_share
    shifts = []
    for baseline in (plain, again):
        streams = baseline.evidence.stream["response"], gather_evidence(tuned, baseline.inputs).stream["response"]
        assert all(stream.writes for stream in streams)  # what is left still adds up
        shifts.append((streams[1].means - streams[0].means).norm(dim=1))
    assert (shifts[0] > 10 * shifts[1]).all()


def test_a_probe_without_them() -> None:
    checkpoint = planted("Z")
    comments = [Comment(f"Z {w} {i}", t) for i in range(12) for w, t in (("fool", True), ("friend", False))]
    plain, left_out = (fit_probe(checkpoint, comments, seed=0, without_sinks=without) for without in (False, True))
    assert plain.class_means[:, DIMENSION].abs().min() > 100 > left_out.class_means.abs().max()
    assert (left_out.without_sinks, plain.without_sinks) == (True, False)


def test_a_study_locates_without_them(tmp_path: Path) -> None:
    planted("Z").save(tmp_path / "model")
    (tmp_path / "run" / "data").mkdir(parents=True)
    instances = [make_instance(i, unsafe_generation=f"Zap you {i}") for i in range(3)]
    write_safeedit(instances, tmp_path / "run" / "data" / "test.json")
    files = DataFiles(train="-", validation="-", test="-", comments="-")
    for without in (False, True):
        config = StudyConfig(model=str(tmp_path / "model"), data=files, device="cpu", without_sinks=without)
        run = Run(config, 0, tmp_path / "run")
        locate.make(run, Silent())
        assert bool((run.table("located")["sink_share"] > 0.5).any()) is not without
        assert bool(run.table("toxic_layer")["sinks"].any()) is not without
