"""The relapse test: what is planted comes back by what carries it and by nothing else, and the numbers by hand."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from checkpoint_folder import INSTANCES, compared, make_folder, table
from command_line import call
from comparisons import baseline_of
from conftest import MAIN_ARCHITECTURES, N_BLOCKS, make_instance, tiny_checkpoint
from relapsing import ASKED, BOTH, FEW, NEW, UNCONTROLLED, Lenient, exactly, responses, treated

from mechinterp.audit.evidence import gather_evidence
from mechinterp.audit.relapse import testing as running
from mechinterp.audit.relapse.of_blocks import nearest_blocks
from mechinterp.audit.relapse.of_keys import toxic_neurons
from mechinterp.audit.relapse.registry import TREATMENTS
from mechinterp.audit.relapse.results import COLUMNS, RelapseTest, decomposed_verdicts, relapse_tables
from mechinterp.audit.relapse.testing import relapse_from_evidence, relapse_test, unsafe_prompts
from mechinterp.audit.relapse.treatments import RelapseSettings, doses, outline
from mechinterp.audit.tables.contrast import Contrast
from mechinterp.audit.tables.neurons import neuron_tables
from mechinterp.data.safeedit import write_safeedit
from mechinterp.errors import InputError
from mechinterp.measures.neurons import GROUPS
from mechinterp.measures.relapse import Rates, agreement, judge_relapse
from mechinterp.measures.statistics import wilson
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.generation import generate
from mechinterp.report.plotting.relapse import plot_relapse

NEURON_GROUPS = tuple(name for name, treatment in TREATMENTS.items() if treatment.unit == "group")


def changed(base: Checkpoint, wanted: Callable[[str], bool], *, size: float = 2.0) -> Checkpoint:
    """The base with some of its parameters moved at random."""
    model, generator = copy.deepcopy(base.model), torch.Generator().manual_seed(1)
    moved = [name for name, _ in model.named_parameters() if wanted(name)]
    assert moved
    for name in moved:
        parameter = model.get_parameter(name)
        parameter.data += size * torch.randn(parameter.shape, generator=generator)
    return Checkpoint("tuned", model, base.tokenizer)


def parts(base: Checkpoint, *components: str, blocks: range = range(N_BLOCKS)) -> Callable[[str], bool]:
    """Whether a parameter is one of some components in some blocks."""
    names = base.names
    paths = [names.module(f"blocks.{b}.{c}") for b in blocks for c in components if names.has(f"blocks.{b}.{c}")]
    return lambda name: name.rpartition(".")[0] in paths


# -- planted: what was changed is what brings the behaviour back ---


@pytest.mark.parametrize("architecture", MAIN_ARCHITECTURES)
def test_changed_value_vectors_are_undone_by_value_vectors(architecture: str) -> None:
    base = tiny_checkpoint(architecture)
    test = treated(base, changed(base, parts(base, "mlp.out")), settings=UNCONTROLLED)
    row = test.verdict()
    assert responses(test, "values", N_BLOCKS) == test.base.responses
    assert row["by_values"] == row["by_values_high"] == 1.0
    assert row["by_values_low"] > 0.6
    assert row["by_activations"] < 0.2
    assert row["share_by_values"] > 0.75  # few prompts: its interval may span
    assert row["verdict"] in ("erased", "undecided")


@pytest.mark.parametrize("architecture", MAIN_ARCHITECTURES)
def test_a_changed_way_into_the_region_is_undone_by_activations(architecture: str) -> None:
    base = tiny_checkpoint(architecture)
    test = treated(base, changed(base, parts(base, "mlp.in", "mlp.gate")), settings=UNCONTROLLED)
    row = test.verdict()
    assert responses(test, "activations", N_BLOCKS) == test.base.responses
    assert responses(test, "values", N_BLOCKS) == test.tuned.responses  # there is nothing to undo
    assert (row["by_activations"], row["by_values"], row["share_by_values"]) == (1.0, 0.0, 0.0)
    assert row["verdict"] == "bypassed"


@pytest.mark.parametrize(
    ("architecture", "block"),
    [*((architecture, N_BLOCKS - 1) for architecture in MAIN_ARCHITECTURES), ("gpt2", 1), ("gemma2", 1)],
)
def test_an_edit_of_one_value_matrix_comes_back_there_by_its_values_alone(architecture: str, block: int) -> None:
    """As DINM edits: into the edited matrix flows what flowed into the base's, so activations restore nothing there."""
    base = tiny_checkpoint(architecture)
    edited = changed(base, parts(base, "mlp.out", blocks=range(block, block + 1)))
    test = treated(base, edited, block=block)
    row = test.verdict("erased")
    assert responses(test, "activations", 1) == test.tuned.responses
    assert responses(test, "values", 1) == test.base.responses
    assert (row["by_layer_activations"], row["by_layer_values"]) == (0.0, 1.0)
    assert row["exceeds_random_values_low"] > 0  # as many rows at random do not bring it all back
    assert row["by_random_values"] < 1
    if block == N_BLOCKS - 1:  # nothing above it reads what it wrote
        assert responses(test, "activations", N_BLOCKS) == test.tuned.responses
        assert (row["by_activations"], row["share_by_values"]) == (0, 1)
        # few prompts, and fewer on which the edit tells: the interval may span
        assert (row["verdict"], row["agrees"]) in (("erased", "yes"), ("undecided", "silent"))
        assert row["decomposition"] == "erased"


@pytest.mark.parametrize("architecture", MAIN_ARCHITECTURES)
def test_an_mlp_changed_all_over_comes_back_by_both(architecture: str) -> None:
    base = tiny_checkpoint(architecture)
    test = treated(base, changed(base, parts(base, "mlp.in", "mlp.gate", "mlp.out")), settings=BOTH)
    assert responses(test, "both", N_BLOCKS) == test.base.responses
    assert test.verdict()["by_both"] == 1.0
    assert test.verdict()["outside"] == 0.0


def test_what_lies_outside_of_the_mlps_does_not_come_back() -> None:
    base = tiny_checkpoint("llama")
    tuned = changed(base, parts(base, "attn.q", "attn.k", "attn.v", "attn.o"))
    row = treated(base, tuned, settings=BOTH).verdict()
    assert row["outside"] > 0.5
    assert row["verdict"] == "undecided"
    assert "neither alone restores the behaviour" in str(row["reason"])


def test_a_base_against_itself_is_undecided_and_says_the_same(checkpoint: Checkpoint) -> None:
    for tuned in (checkpoint, Checkpoint("copy", copy.deepcopy(checkpoint.model), checkpoint.tokenizer)):
        test = treated(checkpoint, tuned)
        same = {o.answers.responses for o in test.outcomes if not o.control} | {test.tuned.responses}
        assert same == {test.base.responses}
        row = test.verdict("bypassed")
        assert (row["verdict"], row["agrees"]) == ("undecided", "silent")
        assert "defends no better than the base" in str(row["reason"])
        assert math.isnan(row["by_activations"])  # type: ignore[arg-type]
        assert test.table()["relapse"].isna().all()


def some_ways_in_changed(base: Checkpoint) -> tuple[Checkpoint, torch.Tensor]:
    """GPT-2 with the way into 8 neurons of every block changed, and 1 for those, [block, d_mlp]."""
    size = torch.zeros(N_BLOCKS, len(base.value_matrix(0)))
    tuned = Checkpoint("tuned", copy.deepcopy(base.model), base.tokenizer)
    generator = torch.Generator().manual_seed(3)
    for block in range(N_BLOCKS):
        some = torch.randperm(size.shape[1], generator=generator)[:8]
        size[block, some] = 1.0
        weight = tuned.parameter(f"{tuned.names.module(f'blocks.{block}.mlp.in')}.weight").data  # [d_model, d_mlp]
        weight[:, some] += torch.randn(len(weight), 8, generator=generator)
    return tuned, size


def test_chosen_neurons_restore_what_random_ones_do_not() -> None:
    """Only some neurons' way in is changed; ranked first, their activations are all that is missing."""
    base = tiny_checkpoint("gpt2")
    tuned, size = some_ways_in_changed(base)
    settings = RelapseSettings(treatments=("activations", "values", "neurons"), neuron_shares=(0.1, 0.2), draws=2)
    test = treated(base, tuned, settings=settings, ranking=size)
    by = test.table().query("treatment == 'neurons'").set_index(["dose", "control", "draw"])["relapse"]
    assert by[0.2, False, 0] == 1.0
    assert responses(test, "neurons", 0.2) == test.base.responses
    assert by[0.1, False, 0] < 1.0
    assert by[0.2, True].max() < 0.5
    assert list(test.table().query("treatment == 'neurons'")["n_neurons"]) == [0, 12, 12, 12, 24, 24, 24]


def test_the_one_group_that_carries_restores_and_the_others_do_not() -> None:
    base = tiny_checkpoint("gpt2")
    tuned, size = some_ways_in_changed(base)
    groups = torch.arange(size.numel()).reshape(size.shape) % 4  # neurons without a change: 0 to 3, and 4 for `neither`
    groups[groups == 1] = 4
    groups[size == 1] = 1
    settings = RelapseSettings(treatments=("activations", "values", *NEURON_GROUPS), draws=2)
    found = treated(base, tuned, settings=settings, groups=groups).table()
    total = size.numel()
    for number, name in enumerate(NEURON_GROUPS):
        rows, n = found[found["treatment"] == name], int((groups == number).sum())
        start, own = rows.iloc[0], rows.iloc[1]
        assert (start["dose"], start["n_neurons"], start["relapse"], own["control"]) == (0.0, 0, 0.0, False)
        assert own["relapse"] == float(name == "anti_toxic_up")
        controls = rows[rows["control"]]
        assert list(controls["draw"]) == [1, 2]
        assert (rows["n_neurons"].iloc[1:] == n).all()  # controls are as many
        assert (rows["dose"].iloc[1:] == n / total).all()
        assert (rows["share_of_neurons"] == rows["dose"]).all()
        assert controls["relapse"].max() < 0.5


@pytest.mark.parametrize("architecture", MAIN_ARCHITECTURES)
def test_all_groups_together_are_the_activations_of_all_blocks(architecture: str) -> None:
    base = tiny_checkpoint(architecture)
    tuned = changed(base, parts(base, "attn.v", "mlp.in", "mlp.gate", "mlp.out"))
    total = N_BLOCKS * len(base.value_matrix(0))
    groups = torch.randint(4, (total,), generator=torch.Generator().manual_seed(0)).reshape(N_BLOCKS, -1)
    settings = RelapseSettings(treatments=("activations", "values", *NEURON_GROUPS), blocks="all", draws=0)
    found = {dose.treatment: dose for dose in doses(base, settings, block=0, seed=0, groups=groups)}

    def under(*names: str) -> list[str]:
        with ExitStack() as stack:
            for name in names:
                stack.enter_context(found[name].apply(tuned, base))
            return generate(tuned, ASKED, max_new_tokens=NEW)

    assert sum(found[name].n_neurons for name in NEURON_GROUPS) == found["activations"].n_neurons == total
    assert under(*NEURON_GROUPS) == under("activations") != under()
    assert under(*NEURON_GROUPS[:2]) != under("activations")


def test_groups_that_are_not_known_or_empty_are_left_out(checkpoint: Checkpoint) -> None:
    settings = RelapseSettings(draws=2)

    def given(**known: torch.Tensor) -> list[tuple[str, int, int]]:
        found = doses(checkpoint, settings, block=0, seed=0, **known)
        return [(dose.treatment, dose.n_neurons, dose.draw) for dose in found if dose.treatment in NEURON_GROUPS]

    shape = N_BLOCKS, len(checkpoint.value_matrix(0))
    n = shape[0] * shape[1]
    assert given() == given(ranking=torch.ones(shape)) == []
    assert given(groups=torch.full(shape, 4)) == []  # all in `neither`
    assert given(groups=torch.full(shape, 2)) == [("toxic_up", n, 0)]  # of all neurons there is no control
    groups = torch.full(shape, 4)
    groups[1, :3] = 3
    assert given(groups=groups) == [("anti_toxic_down", 3, draw) for draw in (0, 1, 2)]
    assert (*NEURON_GROUPS, "neither") == GROUPS["activation_change"]


def test_both_models_are_left_as_they_were(checkpoint: Checkpoint) -> None:
    tuned = changed(checkpoint, parts(checkpoint, "mlp.out"))
    before = [copy.deepcopy(one.model.state_dict()) for one in (checkpoint, tuned)]
    direction = torch.randn(checkpoint.names.d_model, generator=torch.Generator().manual_seed(99))
    treated(checkpoint, tuned, settings=RelapseSettings(key_factors=(2.0,)), toxic_direction=direction)

    def unchanged() -> None:
        for one, state in zip((checkpoint, tuned), before, strict=True):
            assert all(torch.equal(value, state[name]) for name, value in one.model.state_dict().items())
            assert not any(m._forward_hooks or m._forward_pre_hooks for m in one.model.modules())

    unchanged()
    numbers = torch.arange(N_BLOCKS * len(checkpoint.value_matrix(0))).reshape(N_BLOCKS, -1)
    known = {"toxic_direction": direction, "ranking": numbers.float(), "groups": numbers % 5}
    found = doses(checkpoint, RelapseSettings(), block=1, seed=0, **known)
    assert {dose.treatment for dose in found} == set(RelapseSettings().treatments)
    for dose in found:
        with pytest.raises(KeyboardInterrupt), dose.apply(tuned, checkpoint):
            raise KeyboardInterrupt
    unchanged()


def test_keys_that_are_packed_are_left_out_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    base = tiny_checkpoint("phi3")
    found = doses(base, RelapseSettings(), block=0, seed=0, toxic_direction=torch.ones(base.names.d_model))
    assert {dose.treatment for dose in found} == {"activations", "values", "both"}
    assert "keys are not scaled" in caplog.text


# -- the numbers ---


def outcomes(text: str) -> torch.Tensor:
    return torch.tensor([float(letter == "u") for letter in text], dtype=torch.float64)


def test_relapse_by_hand() -> None:
    rates = Rates(outcomes("uuuuu"), outcomes("sssus"), seed=0)
    assert rates.gain.value == pytest.approx(0.8)
    assert rates.relapse(outcomes("ussus")).value == pytest.approx(1 / 4)
    assert rates.relapse(outcomes("sssss")).value == pytest.approx(-1 / 4)  # the treatment defends even better
    assert rates.relapse(outcomes("uuuuu")).value == 1.0
    assert rates.exceeding(outcomes("uusus"), outcomes("sssus")).value == pytest.approx(2 / 4)
    share = rates.share_by_values(activations=outcomes("ussus"), values=outcomes("uuuus"))
    assert share.value == pytest.approx(3 / 4)
    assert rates.share_by_values(outcomes("sssss"), outcomes("uuuus")).value == 1.0  # what defends better restores none
    assert math.isnan(rates.share_by_values(outcomes("sssus"), outcomes("sssus")).value)


def test_without_a_gain_there_is_no_relapse() -> None:
    for tuned in ("uus", "uuu"):
        found = Rates(outcomes("uus"), outcomes(tuned), seed=0).relapse(outcomes("uuu"))
        assert all(math.isnan(value) for value in (found.value, found.low, found.high))


ALL, NONE, HALF = "u" * 40, "s" * 40, "u" * 20 + "s" * 20


@pytest.mark.parametrize(
    ("tuned", "activations", "values", "verdict"),
    [
        (NONE, ALL, NONE, "bypassed"),
        (NONE, NONE, ALL, "erased"),
        (NONE, HALF, HALF, "mixed"),
        (NONE, ALL, ALL, "mixed"),
        (NONE, NONE, NONE, "undecided"),  # neither restores it
        (ALL, ALL, NONE, "undecided"),  # nothing was defended
        (NONE, "u" * 30 + "s" * 10, "u" * 8 + "s" * 32, "undecided"),  # spans bypassed and mixed
    ],
)
def test_the_verdict_follows_the_share(tuned: str, activations: str, values: str, verdict: str) -> None:
    rates = Rates(outcomes(ALL), outcomes(tuned), seed=0)
    assert judge_relapse(rates, outcomes(activations), outcomes(values)).verdict == verdict


def test_the_reason_tells_what_the_two_do_together() -> None:
    rates = Rates(outcomes(ALL), outcomes(NONE), seed=0)
    assert "the two together 100%" in judge_relapse(rates, outcomes(NONE), outcomes(NONE), outcomes(ALL)).reason


def test_agreement_is_silent_where_one_is_undecided() -> None:
    assert agreement("erased", "erased") == "yes"
    assert agreement("erased", "bypassed") == agreement("mixed", "erased") == "no"
    assert agreement("undecided", "erased") == agreement("erased", "undecided") == agreement("erased", None) == "silent"


def test_the_ladder_grows_around_the_block() -> None:
    assert [nearest_blocks(4, 6, n) for n in (1, 2, 3, 6)] == [[4], [3, 4], [3, 4, 5], [0, 1, 2, 3, 4, 5]]
    steps = list(outline(RelapseSettings(draws=2), 6))
    assert [step[1:] for step in steps if step[0] == "values"] == [(1, 2), (2, 2), (3, 2), (6, 0)]
    assert all(controls == 0 for treatment, _, controls in steps if treatment == "both")
    assert [step[1] for step in outline(RelapseSettings(), 1) if step[0] == "values"] == [1]
    assert [step for step in outline(RelapseSettings(blocks="all"), 6) if step[0] == "values"] == [("values", 6, 0)]
    groups = [step for step in outline(RelapseSettings(draws=2), 6) if step[0] in NEURON_GROUPS]
    assert [(name, math.isnan(dose), controls) for name, dose, controls in groups] == [
        (name, True, 2) for name in NEURON_GROUPS
    ]


def test_a_new_treatment_is_one_line_of_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The embeddings' block alone, say: settings, doses, controls, table and figure take it from the registry."""
    new = dataclasses.replace(TREATMENTS["values"], name="first_values", label="its first block")
    new = dataclasses.replace(new, doses=lambda settings, n_blocks: (1,), choose=lambda known: lambda _: {0: None})
    with pytest.raises(ValueError, match="unknown treatment 'first_values'; known are activations, values, both, "):
        RelapseSettings(treatments=("activations", "values", new.name))
    monkeypatch.setitem(TREATMENTS, new.name, new)  # type: ignore[arg-type]
    settings = RelapseSettings(treatments=("activations", "values", new.name), blocks="all")
    base = tiny_checkpoint("gpt2")
    test = treated(base, changed(base, parts(base, "mlp.out", blocks=range(1))), settings=settings)
    assert responses(test, new.name, 1) == test.base.responses
    rows = test.table().query("treatment == 'first_values'")
    assert list(rows["dose"]) == [0, 1, 1]
    assert list(rows["control"]) == [False, False, True]
    assert "its first block" in [axes.get_title() for axes in plot_relapse(test.table()).axes]


def test_of_the_whole_model_alone_there_are_no_controls_and_no_toxic_layer() -> None:
    base = tiny_checkpoint("gpt2")
    settings = RelapseSettings(treatments=("activations", "values", "both"), blocks="all")
    test = treated(base, changed(base, parts(base, "mlp.out")), settings=settings)
    assert [(o.treatment, o.dose) for o in test.outcomes] == [(name, 3.0) for name in settings.treatments]
    row = test.verdict()
    assert row["by_values"] == row["by_both"] == 1.0
    assert math.isnan(row["by_layer_values"])  # type: ignore[arg-type]
    assert math.isnan(row["by_random"])  # type: ignore[arg-type]


def test_toxic_neurons_are_those_of_the_plain_formula(checkpoint: Checkpoint) -> None:
    w = torch.randn(checkpoint.names.d_model, generator=torch.Generator().manual_seed(0))
    values = np.concatenate([checkpoint.value_matrix(b).double().numpy() for b in range(N_BLOCKS)])
    cosine = values @ w.double().numpy() / np.linalg.norm(values, axis=1) / np.linalg.norm(w.double().numpy())
    d_mlp = len(values) // N_BLOCKS
    expected = {divmod(int(i), d_mlp) for i in np.argsort(-cosine)[:7]}
    assert {(b, int(j)) for b, js in toxic_neurons(checkpoint, w, 7).items() for j in js} == expected


def test_controls_are_seeded_nested_and_as_many(checkpoint: Checkpoint) -> None:
    """Of `values`: the same seed draws the same neurons; a larger dose has the smaller one's among them."""
    seen: dict[tuple[str, float], dict[str, torch.Tensor]] = {}
    for seed in (0, 0, 1):
        for dose in doses(checkpoint, FEW, block=0, seed=seed):
            if dose.treatment == "values" and dose.control:
                before = [checkpoint.value_matrix(b).clone() for b in range(N_BLOCKS)]
                other = changed(checkpoint, parts(checkpoint, "mlp.out"))
                with dose.apply(checkpoint, other):
                    rows = torch.stack([(checkpoint.value_matrix(b) != before[b]).any(1) for b in range(N_BLOCKS)])
                assert int(rows.sum()) == dose.n_neurons
                seen.setdefault((f"seed {seed}", dose.dose), {"rows": rows})
                assert torch.equal(seen[f"seed {seed}", dose.dose]["rows"], rows)
    one, two = (seen["seed 0", dose]["rows"] for dose in (1.0, 2.0))
    assert not (one & ~two).any()
    assert not torch.equal(one, seen["seed 1", 1.0]["rows"])


# -- tables and files ---


def test_tables_survive_the_folder_and_can_be_judged_again(tmp_path: Path) -> None:
    base = tiny_checkpoint("mistral")
    test = treated(base, changed(base, parts(base, "mlp.out")))
    loaded = RelapseTest.load(test.save(tmp_path / "test"))
    assert loaded == test
    tables = relapse_tables([loaded], {"tuned": "bypassed"})
    assert tuple(tables["relapse"].columns) == COLUMNS
    assert tables["relapse_verdict"].loc[0, "agrees"] == "no"
    again = loaded.judged(Lenient())
    assert (again.table()["defense"] == 1.0).all()
    pd.testing.assert_frame_equal(exactly(again).table(), test.table())
    first = tables["relapse"].groupby("treatment").first()
    assert (first["relapse"] == 0).all()  # every treatment begins with the tuned model as it is
    assert (first["defense"] == tables["relapse_verdict"].loc[0, "defense_tuned"]).all()
    assert len(test.answers()) == len(ASKED) * (2 + len(test.outcomes))


def test_evidence_gives_prompts_and_rankings() -> None:
    base = tiny_checkpoint("qwen2")
    baseline = baseline_of(base)
    tuned = changed(base, parts(base, "mlp.in", "mlp.gate"))
    evidence = gather_evidence(tuned, baseline.inputs)
    prompts = baseline.unsafe_prompts(40)
    asked = list(baseline.inputs.prompts)
    assert prompts
    assert all(baseline.unsafe[asked.index(p)] and baseline.checked[asked.index(p)] for p in prompts)
    settings = RelapseSettings(draws=0)
    test = relapse_from_evidence(base, tuned, baseline, evidence, Lenient(), settings=settings, max_new_tokens=NEW)
    assert {outcome.treatment for outcome in test.outcomes} == set(settings.treatments)
    assert test.prompts == tuple(prompts)
    groups = neuron_tables(Contrast("tuned", baseline, evidence, {}))["neuron_groups"]
    sizes = groups.query("definition == 'activation_change' and direction == 'answer' and position == 'prompt_last'")
    sizes = dict(zip(sizes["group"], sizes["n_neurons"], strict=True))
    treated_neurons = {outcome.treatment: outcome.n_neurons for outcome in test.outcomes}
    assert {name: treated_neurons[name] for name in NEURON_GROUPS} == {name: sizes[name] for name in NEURON_GROUPS}


def test_a_base_that_answers_nothing_unsafely_is_undecided_in_a_comparison() -> None:
    base = tiny_checkpoint("qwen2")
    baseline = baseline_of(base)
    baseline.unsafe[:] = False
    evidence = gather_evidence(base, baseline.inputs)
    test = relapse_from_evidence(base, base, baseline, evidence, Lenient())
    tables = relapse_tables([test], {test.method: "bypassed"})
    assert list(tables["relapse"].columns) == list(COLUMNS)
    assert tables["relapse"].empty
    row = tables["relapse_verdict"].iloc[0]
    assert (row["verdict"], row["agrees"], row["n"]) == ("undecided", "silent", 0)
    assert row["reason"] == "the base answers no prompt unsafely"


@pytest.mark.parametrize(
    ("prompts", "restored", "verdict"),
    [(1, 1, "undecided"), (2, 2, "undecided"), (40, 1, "undecided"), (40, 4, "undecided"), (40, 20, "bypassed")],
)
def test_few_answers_decide_nothing(prompts: int, restored: int, verdict: str) -> None:
    """None of n and all of n have an interval too: by values nothing returned in each of these."""
    everything, nothing = torch.ones(prompts), torch.zeros(prompts)
    activations = (torch.arange(prompts) < restored).float()
    found = judge_relapse(Rates(everything, nothing, seed=0), activations, nothing)
    assert found.verdict == verdict
    assert (found.values.value, found.values.low) == (0, 0)
    assert found.values.high > 0
    assert found.share.high > 0
    flipped = judge_relapse(Rates(everything, nothing, seed=0), nothing, activations)
    assert flipped.verdict == verdict.replace("bypassed", "erased")


def test_none_of_forty_has_about_wilsons_interval() -> None:
    found = Rates(torch.ones(40), torch.zeros(40), seed=0).relapse(torch.zeros(40))
    assert found.high == pytest.approx(wilson(0, 40).high, abs=0.03)
    half = Rates(torch.ones(40), torch.zeros(40), seed=0).relapse((torch.arange(40) < 20).float())
    assert (half.low, half.high) == pytest.approx((wilson(20, 40).low, wilson(20, 40).high), abs=0.03)


def test_the_decompositions_verdict_is_the_one_along_the_answer() -> None:
    rows = [(m, d, p, f"{d} {p}") for m in "ab" for d in ("probe", "answer") for p in ("prompt_last", "response")]
    verdicts = pd.DataFrame(rows, columns=["method", "direction", "position", "verdict"])
    assert decomposed_verdicts(verdicts) == {"a": "answer prompt_last", "b": "answer prompt_last"}


# -- many checkpoints ---


@pytest.fixture
def folder(shared: Callable[..., Path]) -> Path:
    return shared("checkpoints", make_folder)


undisturbed = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning", "ignore::RuntimeWarning"
)


class Harsh:
    """Calls everything unsafe, so that there is something to ask."""

    name = "harsh"

    def __call__(self, responses) -> np.ndarray:
        return np.zeros(len(responses))


@undisturbed
def test_a_comparison_treats_each_checkpoint_once(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("checkpoint_folder.EmbeddedJudge.fit", lambda *_, **__: Harsh())
    settings = RelapseSettings(draws=0, neuron_shares=(0.1,), key_factors=(2.0,))
    compared(folder, tmp_path, "tuned", "edit", relapse=settings)
    before = {name: table(tmp_path, name) for name in ("relapse", "relapse_verdict", "local_verdict")}
    assert list(before["relapse_verdict"]["method"]) == ["tuned", "edit"]
    assert (before["relapse_verdict"]["n"] > 0).all()
    assert set(before["relapse"]["treatment"]) == set(settings.treatments)
    assert not compared(folder, tmp_path, "tuned", "edit", relapse=settings)  # nothing was opened
    pd.testing.assert_frame_equal(table(tmp_path, "relapse"), before["relapse"])
    treat, made = running.relapse_test, []
    monkeypatch.setattr(running, "relapse_test", lambda *a, **k: made.append(a[1].name) or treat(*a, **k))
    compared(folder, tmp_path, "edit", "adapter", relapse=settings)
    assert made == ["adapter"]
    compared(folder, tmp_path, "tuned")
    assert not (tmp_path / "tables" / "relapse.csv").exists()


@undisturbed
def test_the_command_needs_no_comparison(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mechinterp.cli.judging.Judging.of", lambda *_: Harsh())
    data = tmp_path / "data.json"
    write_safeedit([make_instance(i, safe_generation=f"I am sorry, not {i}.") for i in range(12)], data)
    base = ["relapse", "--base", folder / "base", "--data", data, "--max-new-tokens", 3, "--layer", 1]
    given = [*base, "--checkpoint", f"tuned={folder / 'tuned'}", "--checkpoint", f"edit={folder / 'edit'}"]
    out = ["--out", tmp_path / "out"]
    code = call(*given, *out, "--probe", folder / "probe.safetensors", "--prompts", 4)
    shown = capsys.readouterr()
    assert code == 0, shown.err
    found = table(tmp_path / "out", "relapse")
    assert set(found["treatment"]) == {"activations", "values", "both", "keys"}
    assert list(table(tmp_path / "out", "relapse_verdict")["agrees"]) == ["silent", "silent"]
    assert "edit: " in shown.out
    answers = json.loads((tmp_path / "out" / "answers" / "edit.json").read_text())
    assert {"prompt", "response", "safe", "treatment"} <= answers[0].keys()
    assert call(*given, *out, "--probe", folder / "probe.safetensors", "--prompts", 4) == 0
    pd.testing.assert_frame_equal(table(tmp_path / "out", "relapse"), found)


@undisturbed  # the folder is made by whichever test asks first
def test_what_the_command_refuses(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = tmp_path / "data.json"
    write_safeedit(INSTANCES, data)
    tiny_checkpoint("gpt2").save(tmp_path / "other")
    shutil.copytree(folder / "tuned", tmp_path / "short")
    config = json.loads((tmp_path / "short" / "config.json").read_text())
    (tmp_path / "short" / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}))
    base = ["relapse", "--base", folder / "base", "--data", data, "--out", tmp_path / "out", "--layer", 1]
    for given, message in (
        (["--checkpoint", "tuned"], "--checkpoint takes NAME=PATH"),
        (["--checkpoint", f"a={tmp_path / 'other'}"], "cannot be compared"),
        (["--checkpoint", f"base={folder / 'tuned'}"], "occur more than once"),
        (["--checkpoint", f"a={tmp_path / 'short'}", "--truncate"], "would not read the same"),
        (["--checkpoint", f"a={folder / 'tuned'}", "--layer", "9"], "block 9 is out of range"),
    ):
        assert call(*base, *given) == 2
        assert message in capsys.readouterr().err


def test_bad_input_is_refused() -> None:
    base, judge = tiny_checkpoint("llama"), Lenient()
    tuned = tiny_checkpoint("llama", seed=1)
    with pytest.raises(InputError, match="no prompts that the base answers unsafely"):
        relapse_test(base, tuned, [], judge, block=0)
    with pytest.raises(InputError, match="cannot be compared"):
        relapse_test(base, tiny_checkpoint("mistral"), ASKED, judge, block=0)
    with pytest.raises(InputError, match="block 7"):
        relapse_test(base, tuned, ASKED, judge, block=7)
    with pytest.raises(InputError, match="toxic direction has shape"):
        relapse_test(base, tuned, ASKED, judge, block=0, toxic_direction=torch.ones(3))
    with pytest.raises(InputError, match="ranking has shape"):
        relapse_test(base, tuned, ASKED, judge, block=0, ranking=torch.ones(2, 3))
    with pytest.raises(InputError, match="table of groups has shape"):
        relapse_test(base, tuned, ASKED, judge, block=0, groups=torch.ones(2, 3, dtype=torch.long))
    with pytest.raises(InputError, match="answers none of the 6 adversarial prompts unsafely"):
        unsafe_prompts(base, INSTANCES, judge, 4, max_new_tokens=2)


@pytest.mark.parametrize(
    "given",
    [
        {"treatments": ("values",)},
        {"treatments": ("nothing",)},
        {"neuron_shares": (0.0,)},
        {"key_factors": (float("nan"),)},
        {"prompts": 1},
        {"blocks": "some"},
    ],
)
def test_settings_out_of_range(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"treatments|neuron_shares|key_factors|prompts|blocks"):
        RelapseSettings.model_validate(given)
