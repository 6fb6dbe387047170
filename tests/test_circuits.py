"""Circuits against released code, against central differences, and against themselves."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import CONFIGS, byte_tokenizer, tiny_checkpoint
from made_checkpoints import perturbed
from safetensors.torch import load_file
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import AutoModelForCausalLM

from mechinterp.audit.circuits import scoring
from mechinterp.audit.circuits.acdc import acdc
from mechinterp.audit.circuits.batches import PairBatch, TokenPair, pair_batches
from mechinterp.audit.circuits.circuit import Circuit, greedy, top
from mechinterp.audit.circuits.comparison import compare_circuits, overlaps
from mechinterp.audit.circuits.faithfulness import faithfulness, run_alone
from mechinterp.audit.circuits.graph import Graph
from mechinterp.audit.circuits.means import held_apart
from mechinterp.audit.circuits.places import Places
from mechinterp.audit.circuits.running import Replaced, run_circuit
from mechinterp.audit.circuits.scores import EdgeScores
from mechinterp.audit.circuits.scoring import Matrix, find_circuit, score_batch
from mechinterp.audit.circuits.split import split_circuit
from mechinterp.audit.circuits.writes import Ends
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

GOLDEN = Path(__file__).parent / "golden" / "circuits"
CASES = json.loads((GOLDEN / "cases.json").read_text())
PAIRS = [
    TokenPair(tuple(clean), tuple(corrupted), (right,), (wrong,))
    for clean, corrupted, (right, wrong) in zip(CASES["clean"], CASES["corrupted"], CASES["labels"], strict=True)
]
SHAPES = ("gpt2", "llama", "qwen2", "qwen3", "phi3", "opt", "mixtral")
RAGGED = [
    TokenPair((5, 6, 7, 8, 9), (5, 6, 30, 8, 9), (40,), (41,)),
    TokenPair((11, 12, 13), (14, 12, 13), (42, 43), ()),
    TokenPair((20, 21, 22, 23, 24, 25, 26), (20, 21, 22, 60, 24, 61, 26), (44,), (45, 46)),
]


def golden_model(name: str) -> Checkpoint:
    return Checkpoint(name, AutoModelForCausalLM.from_pretrained(GOLDEN / name).eval(), byte_tokenizer(), name)


@pytest.fixture(scope="module")
def gpt2() -> Checkpoint:
    return golden_model("gpt2")


@pytest.fixture(scope="module")
def grouped() -> Checkpoint:
    """Two query heads to a key head, in float64 throughout: norms that do not round to float32 on the way."""
    found = golden_model("llama")
    model = copy.deepcopy(found.model).double()
    for path, module in list(model.named_modules()):
        if type(module).__name__ == "LlamaRMSNorm":
            norm = nn.RMSNorm(16, eps=1e-6, dtype=torch.float64)
            norm.weight = module.weight
            above, _, name = path.rpartition(".")
            setattr(model.get_submodule(above), name, norm)
    return Checkpoint("grouped", model, found.tokenizer, "grouped")


def ready(checkpoint: Checkpoint, pairs: list[TokenPair]) -> tuple[Places, PairBatch, Ends]:
    places = Places.of(checkpoint)
    (batch,) = pair_batches(checkpoint, places.graph, pairs)
    return places, batch, Ends.of(checkpoint, places, batch)


# -- the graph --------------------------------------------------------------------------------------------------------


def test_the_graph_has_the_edges_of_the_released_one() -> None:
    graph = Graph(2, 2, 2)
    assert (list(graph.writers), list(graph.readers)) == (CASES["forward_names"], CASES["backward_names"])
    assert graph.n_edges == CASES["n_edges"] == int(graph.edges.sum())
    assert Graph(32, 32, 32).n_edges == 1_592_881  # Llama-2-7B, as the released notebook prints
    assert Graph(2, 4, 2).n_edges == 82
    assert [graph.kind_of(node) for node in (0, 1, 3, 7)] == ["input", "attention", "mlp", "logits"]
    assert [graph.block_of(node) for node in (0, 1, 3, 6, 7)] == [None, 0, 0, 1, None]


def test_what_hangs_in_the_air_is_pruned() -> None:
    """By hand: m0 is read by nobody; h1 of block 1 reads nothing."""
    names = ["input->m0", "input->a0.h0<v>", "a0.h0->m1", "m1->logits", "a1.h1->logits", "input->a0.h1<q>"]
    circuit = Circuit.of_names(Graph(2, 2, 2), names)
    assert circuit.pruned().names == ("input->a0.h0<v>", "a0.h0->m1", "m1->logits")
    assert circuit.pruned().nodes == ("input", "a0.h0", "m1", "logits")
    with pytest.raises(InputError, match=r"no edge 'input->a0\.h2<q>'"):
        Circuit.of_names(Graph(2, 2, 2), ["input->a0.h2<q>"])


def test_a_key_stays_while_one_of_the_heads_that_share_it_is_in() -> None:
    graph = Graph(1, 4, 2)
    names = ["input->a0.h0<k>", "input->a0.h1<k>", "a0.h1->logits"]  # key head 0: heads 0 and 1; key head 1: 2 and 3
    circuit = Circuit.of_names(graph, names)
    assert circuit.nodes == ("input", "a0.h1", "a0.h2", "a0.h3", "logits")
    assert circuit.pruned().names == ("input->a0.h0<k>", "a0.h1->logits")
    assert circuit.pruned().nodes == ("input", "a0.h1", "logits")


def test_selections_take_the_largest_whatever_their_sign() -> None:
    graph = Graph(1, 1, 1)
    scores = torch.zeros(graph.edges.shape, dtype=torch.float64)
    values = {"input->a0.h0<q>": 5.0, "a0.h0->logits": -3.0, "input->m0": -2.0, "m0->logits": 1.0, "a0.h0->m0": 0.5}
    for name, value in values.items():
        scores[Circuit.of_names(graph, [name]).edges] = value
    assert set(top(graph, scores, 2).names) == {"input->a0.h0<q>", "a0.h0->logits"}
    assert set(greedy(graph, scores, 1).names) == {"a0.h0->logits"}  # the largest edge is not into a node that is in
    assert set(greedy(graph, scores, 3).names) == {"a0.h0->logits", "input->a0.h0<q>", "m0->logits"}
    assert len(top(graph, scores, 100)) == graph.n_edges == len(greedy(graph, scores, 100))
    assert Circuit.random(graph, 3, seed=1).names == Circuit.random(graph, 3, seed=1).names
    with pytest.raises(InputError, match="at least 1"):
        top(graph, scores, 0)


# -- golden cases -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "steps", "batch"),
    [("eap_bs1", 1, 1), ("eap_bs2", 1, 2), ("eap_ig5_bs1", 5, 1), ("eap_ig5_bs2", 5, 2), ("eap_ig30_bs1", 30, 1)],
)
def test_scores_are_those_of_the_released_code(gpt2: Checkpoint, case: str, steps: int, batch: int) -> None:
    """Of a batch of two the released code divides by the pairs twice."""
    found = find_circuit(gpt2, PAIRS, steps=steps).scores / batch
    wanted = load_file(GOLDEN / "scores.safetensors")[f"{case}.scores"].double()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=2e-7)
    assert float(found.abs().sum()) == pytest.approx(CASES["cases"][case]["sum_abs"], rel=1e-5)


def test_one_pair_and_the_logit_alone_are_those_of_the_released_code(gpt2: Checkpoint) -> None:
    wanted = load_file(GOLDEN / "scores.safetensors")
    one = PAIRS[0]
    alone = TokenPair(one.clean, one.corrupted, one.right)
    for pair, name in ((one, "eap_ig5_case0"), (alone, "eap_ig5_case0_direct")):
        found = find_circuit(gpt2, [pair], steps=5).scores
        torch.testing.assert_close(found, wanted[f"{name}.scores"].double(), rtol=1e-5, atol=2e-7)


def test_gradients_at_both_ends_are_those_of_the_released_code(gpt2: Checkpoint) -> None:
    places, batch, ends = ready(gpt2, PAIRS)
    difference = ends.difference(places, batch.differing)
    (found,) = score_batch(gpt2, places, batch, ends, [difference], (0.0, 1.0)) / 2
    wanted = load_file(GOLDEN / "scores.safetensors")["clean_corrupted_bs1.scores"].double()
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=2e-7)


def shifted_scores(checkpoint: Checkpoint, steps: int, heads_shifted: int) -> Matrix:
    """EAP with every writer's output moved (1 - k/m) of the way to the corrupted one's, the heads' so many times."""
    places, batch, ends = ready(checkpoint, PAIRS)
    difference, graph = ends.difference(places, batch.differing), places.graph
    found = torch.zeros(1, 7, 15, dtype=torch.float64)

    def moves(path: str, by: torch.Tensor) -> RemovableHandle:
        """The columns of `batch.differing` of what a module gives, moved."""

        def hook(_: nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
            return output + nn.functional.pad(by, (0, 0, batch.differing.start, 0))

        return places.module(path).register_forward_hook(hook)

    for step in range(1, steps + 1):
        left, handles = 1 - step / steps, []
        for number, block in enumerate(places.blocks):
            heads = difference[graph.head(number) : graph.head(number, graph.heads)].sum(0)
            handles.append(moves(block.out, heads_shifted * left * heads))
            handles.append(moves(block.mlp, left * difference[graph.head(number, graph.heads)]))
        found += score_batch(checkpoint, places, batch, ends, [difference], (step / steps,))
        for handle in handles:
            handle.remove()
    return found[0] / steps / len(PAIRS)


def test_partial_activations_are_those_of_the_released_code_which_moves_heads_once_for_each_head(
    gpt2: Checkpoint,
) -> None:
    """It hooks the place where all heads of a block write for each of them, and each time moves all."""
    wanted = load_file(GOLDEN / "scores.safetensors")["eap_ig5_partial_bs1.scores"].double()
    torch.testing.assert_close(shifted_scores(gpt2, 5, heads_shifted=2), wanted, rtol=1e-5, atol=2e-7)
    once = shifted_scores(gpt2, 5, heads_shifted=1)
    assert float((once - wanted).abs().max()) == pytest.approx(0.010, abs=0.001)


@pytest.mark.parametrize("name", ["topn10", "topn30", "topn60", "greedy10", "greedy30"])
def test_circuits_are_those_of_the_released_code(gpt2: Checkpoint, name: str) -> None:
    scores = find_circuit(gpt2, PAIRS, steps=5)
    wanted, n = CASES["circuits_from_eap_ig5_bs1"][name], int(name[-2:])
    chosen = scores.top(n) if name.startswith("top") else scores.greedy(n)
    assert sorted(chosen.names) == wanted["selected"]
    assert sorted(chosen.pruned().names) == wanted["after_pruning"]
    assert sorted(chosen.pruned().nodes) == wanted["nodes"]
    alone = run_alone(gpt2, PAIRS, [chosen, chosen.pruned()])
    for circuit in (0, 1):
        assert alone.alone[circuit].tolist() == pytest.approx(wanted["logit_diff"], rel=1e-5, abs=1e-6)
    assert alone.clean.tolist() == pytest.approx(CASES["baseline_clean"], rel=1e-5)
    assert alone.corrupted.tolist() == pytest.approx(CASES["baseline_corrupted"], rel=1e-5)


ACDC = json.loads((GOLDEN / "acdc.json").read_text())


def edge_of(receiver: str, place: str, sender: str, of_sender: str) -> str:
    """The released code's name of an edge as ours; of a query, key or value from its own input, its name."""
    block = int(receiver.split(".")[1])
    writer = f"a{sender.split('.')[1]}.h{of_sender[-2]}" if "hook_result" in sender else f"m{sender.split('.')[1]}"
    writer = "input" if "resid_pre" in sender else writer
    if "resid_post" in receiver:
        return f"{writer}->logits"
    if "mlp_in" in receiver:
        return f"{writer}->m{block}"
    own = f"a{block}.h{place[-2]}<{receiver.split('hook_')[1][0]}>"
    return own if ".attn." in receiver else f"{writer}->{own}"


@pytest.mark.parametrize("name", ACDC["cases"])
def test_acdc_keeps_the_edges_of_the_released_code(gpt2: Checkpoint, name: str) -> None:
    case, ids = ACDC["cases"][name], zip(ACDC["ids"], ACDC["other_ids"], strict=True)
    found = acdc(
        gpt2,
        [TokenPair(tuple(clean[:-1]), tuple(other[:-1]), (clean[-1],)) for clean, other in ids],
        least=case["threshold"],
        replace="zero" if case["zero_ablation"] else "corrupted",
        released=True,
        heads_ascending=case["order_of_heads"] == "reverse",
    )
    wanted = {edge_of(*kept[:4]): kept[5] for kept in case["kept"]}
    assert {*found.circuit.names, *found.direct} == wanted.keys()
    assert {edge: found.effects[edge] for edge in wanted} == pytest.approx(wanted, rel=1e-3, abs=2e-7)
    assert found.metric == pytest.approx(case["metric_of_the_circuit"], rel=1e-5)


def test_acdc_by_the_answer_alone_needs_no_direct_edges(gpt2: Checkpoint) -> None:
    found = acdc(gpt2, PAIRS, least=0.01)
    assert 0 < len(found.circuit) < 46
    assert found.runs <= 47
    assert set(found.circuit.names) == set(found.effects)
    assert all(effect >= 0.01 for effect in found.effects.values())
    with pytest.raises(InputError, match="threshold of ACDC must be above 0"):
        acdc(gpt2, PAIRS, least=0.0)


# -- identities -------------------------------------------------------------------------------------------------------


def test_every_score_of_grouped_heads_is_a_central_difference(grouped: Checkpoint) -> None:
    """Each edge alone carries a little of the corrupted write: 82 edges, in float64."""
    places, batch, ends = ready(grouped, PAIRS)
    scores, graph = find_circuit(grouped, PAIRS, steps=1).scores, places.graph
    assert (graph.heads, graph.key_heads, graph.n_edges) == (4, 2, 82)
    difference, clean = ends.difference(places, batch.differing), Replaced.of(places, batch, ends, "corrupted").writes
    clean, small, found = clean - difference, 1e-4, torch.zeros_like(scores)
    for writer, reader in graph.edges.nonzero().tolist():
        edges = graph.edges.clone()
        edges[writer, reader] = False
        ends_of = []
        for share in (small, -small):
            carried = Replaced(clean + share * difference, batch.differing)
            logits = run_circuit(grouped, places, batch, Circuit(graph, edges), carried)
            ends_of.append(-batch.metric(logits).mean())
        found[writer, reader] = (ends_of[0] - ends_of[1]) / (2 * small)
    assert bool(((found - scores).abs() <= 1e-6 * scores.abs()).all())  # 0 where the last tokens are the same
    assert int((scores != 0).sum()) == 76


@pytest.mark.parametrize("shape", SHAPES)
def test_the_full_circuit_is_the_model_and_the_empty_one_the_other_prompt(shape: str) -> None:
    checkpoint = tiny_checkpoint(shape)
    places, batch, ends = ready(checkpoint, RAGGED)
    replaced = Replaced.of(places, batch, ends, "corrupted")
    wanted = [[], []]
    for pair in RAGGED:
        for number, ids in enumerate((pair.clean, pair.corrupted)):
            with torch.no_grad():
                wanted[number].append(checkpoint.model(torch.tensor([ids])).logits[0, -1])
    order = list(batch.numbers)
    for circuit, logits in ((Circuit.full(places.graph), wanted[0]), (Circuit.empty(places.graph), wanted[1])):
        found = run_circuit(checkpoint, places, batch, circuit, replaced)
        torch.testing.assert_close(found, torch.stack(logits)[order], rtol=1e-4, atol=2e-5)


def test_without_any_write_the_biases_are_left(gpt2: Checkpoint) -> None:
    places, batch, ends = ready(gpt2, PAIRS)
    found = run_circuit(gpt2, places, batch, Circuit.empty(places.graph), Replaced.of(places, batch, ends, "zero"))
    biases = sum(block.attn.c_proj.bias for block in gpt2.model.transformer.h)
    wanted = gpt2.model.lm_head(gpt2.model.transformer.ln_f(biases))
    torch.testing.assert_close(found, wanted.detach().expand_as(found), rtol=1e-4, atol=1e-5)


def test_a_mean_over_the_corrupted_prompt_alone_is_its_replacement(gpt2: Checkpoint) -> None:
    """Whatever the circuit: the mean of one prompt is what it writes."""
    for pair in PAIRS:
        other = [replace(pair, clean=pair.corrupted)] * 2  # given twice it changes nothing
        circuits = [Circuit.random(Graph(2, 2, 2), 20, seed=seed) for seed in (0, 1)]
        by_mean = run_alone(gpt2, [pair], circuits, replace="mean", held_out=other).alone
        torch.testing.assert_close(by_mean, run_alone(gpt2, [pair], circuits).alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", ["gpt2", "llama"])
def test_under_mean_replacement_the_full_circuit_is_the_model_and_the_empty_one_the_mean_stream(shape: str) -> None:
    """The writes and the biases of a position add up to its stream, and so do their means."""
    checkpoint = tiny_checkpoint(shape)
    held_out = [*RAGGED, TokenPair(tuple(range(5, 12)), tuple(range(30, 37)), (1,))]
    places, batch, _ = ready(checkpoint, RAGGED)
    full, empty = Circuit.full(places.graph), Circuit.empty(places.graph)
    whole = run_alone(checkpoint, RAGGED, [full, empty], replace="mean", held_out=held_out)
    apart = run_alone(checkpoint, RAGGED, [full, empty], replace="mean", held_out=held_out, max_tokens=1)
    torch.testing.assert_close(whole.alone, apart.alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole.alone[0], whole.clean)
    norm, streams = places.module(places.final_norm), []
    for pair in held_out:
        for ids in (pair.clean, pair.corrupted):
            seen: list[torch.Tensor] = []
            handle = norm.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0][0]))
            with torch.no_grad():
                checkpoint.model(torch.tensor([ids]))
            handle.remove()
            streams.append(seen[0])
    for number, pair in enumerate(RAGGED):
        at = len(pair.clean) - 1
        mean = torch.stack([stream[at] for stream in streams if len(stream) > at]).mean(0)
        with torch.no_grad():
            logits = checkpoint.model.get_output_embeddings()(norm(mean[None]))
        wanted = replace(batch, pairs=(pair,)).metric(logits).double()
        torch.testing.assert_close(whole.alone[1][number : number + 1], wanted, rtol=1e-4, atol=2e-5)


def test_random_circuits_stand_beside_those_under_mean_replacement(gpt2: Checkpoint) -> None:
    few, held_out = find_circuit(gpt2, PAIRS).top(10), PAIRS[::-1]
    table = faithfulness(gpt2, {"few": few}, PAIRS, replace="mean", held_out=held_out, random=2).iloc[0]
    drawn = [Circuit.random(few.graph, 10, seed=seed) for seed in (0, 1)]
    alone = run_alone(gpt2, PAIRS, [few, *drawn], replace="mean", held_out=held_out)
    assert [table["recovered"], table["random"]] == pytest.approx(
        [alone.recovered(0), (alone.recovered(1) + alone.recovered(2)) / 2]
    )


def test_half_of_the_pairs_are_held_out_none_shorter_than_those_that_are_not() -> None:
    held = held_apart([RAGGED[number % 3] for number in range(7)])
    lengths = [len(RAGGED[number % 3].clean) for number in range(7)]
    out, kept = ([n for n, is_out in zip(lengths, held, strict=True) if is_out is of] for of in (True, False))
    assert (sorted(out), sorted(kept)) == ([3, 5, 5, 7], [3, 5, 7])
    with pytest.raises(InputError, match="give two or more"):
        held_apart(RAGGED[:1])


def test_edges_out_of_the_input_add_up_to_the_gap(gpt2: Checkpoint, caplog: pytest.LogCaptureFixture) -> None:
    found = find_circuit(golden_model("llama"), PAIRS, steps=200)
    assert found.completeness == pytest.approx(1, abs=0.02)
    assert found.complete
    assert not caplog.records
    assert not find_circuit(gpt2, PAIRS, steps=1).complete
    assert "take more `steps`" in caplog.text


@pytest.mark.parametrize("shape", ["gpt2", "opt", "mixtral"])
def test_a_pair_scores_the_same_in_any_company(shape: str) -> None:
    checkpoint = tiny_checkpoint(shape)
    whole = find_circuit(checkpoint, RAGGED, steps=1)
    alone = [find_circuit(checkpoint, [pair], steps=1) for pair in RAGGED]
    one_by_one = find_circuit(checkpoint, RAGGED, steps=1, max_tokens=1)
    twice = find_circuit(checkpoint, [*RAGGED, *RAGGED], steps=1)
    mean = sum(each.scores for each in alone) / len(alone)
    for found in (mean, one_by_one.scores, twice.scores):
        torch.testing.assert_close(found, whole.scores, rtol=1e-3, atol=1e-5)
    assert whole.clean == pytest.approx([each.clean[0] for each in alone], abs=1e-4)


def test_a_model_beside_itself_has_the_same_edges_and_nothing_to_split(gpt2: Checkpoint) -> None:
    found = split_circuit(gpt2, gpt2, PAIRS)
    assert torch.equal(found.written, torch.zeros(7, 15, dtype=torch.float64))
    assert torch.equal(found.read, torch.zeros(7, 15, dtype=torch.float64))
    row = compare_circuits(found.base, found.tuned)
    assert (row["spearman_edges"], row["spearman_nodes"], row["strength"], row["new"], row["note"]) == (1, 1, 1, 0, "")
    assert overlaps(found.base, found.tuned)["jaccard"].tolist() == [1, 1, 1, 1]


def test_written_and_read_make_up_the_difference_and_say_which_it_is(gpt2: Checkpoint) -> None:
    tuned = perturbed(gpt2)
    found = split_circuit(gpt2, tuned, PAIRS)
    torch.testing.assert_close(found.written + found.read, found.tuned.scores - found.base.scores)
    torch.testing.assert_close(found.base.scores, find_circuit(gpt2, PAIRS).scores)
    torch.testing.assert_close(found.tuned.scores, find_circuit(tuned, PAIRS).scores)
    back = split_circuit(tuned, gpt2, PAIRS)
    torch.testing.assert_close(back.written, -found.written)
    last = split_circuit(gpt2, perturbed(gpt2, only="ln_f"), PAIRS)  # nothing is written otherwise, all is read so
    assert torch.equal(last.written, torch.zeros_like(last.written))
    assert float(last.read.abs().max()) > 1e-4


def test_five_steps_are_seven_forward_passes_of_a_pair(gpt2: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both prompts once, and five steps, which share a batch where there is room; and two tokens for a check."""
    tokens: list[int] = []
    handle = gpt2.model.register_forward_pre_hook(
        lambda _, args, kwargs: tokens.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    try:
        together = find_circuit(gpt2, PAIRS[:1], steps=5)
        monkeypatch.setattr(scoring, "points_at_once", lambda *_: 2)
        apart = find_circuit(gpt2, PAIRS[:1], steps=5)
    finally:
        handle.remove()
    assert tokens == [2, 10, 25, 2, 10, 10, 10, 5]
    assert sum(tokens[1:3]) / 5 <= 25
    torch.testing.assert_close(together.scores, apart.scores, rtol=1e-4, atol=1e-7)


def test_steps_share_a_pass_as_far_as_what_it_keeps_has_room(gpt2: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Places.of(gpt2).graph
    (batch,) = pair_batches(gpt2, graph, PAIRS[:1])
    kept = 24 * gpt2.n_blocks * 4 * gpt2.names.d_model * len(PAIRS[0].clean)
    for times in (1, 3):
        monkeypatch.setattr(scoring, "room", lambda _, times=times: times * kept // 2)
        assert scoring.points_at_once(gpt2, graph, batch) == times
    monkeypatch.setattr(scoring, "room", lambda _: 1)
    assert scoring.points_at_once(gpt2, graph, batch) == 1


def test_only_the_tuned_models_scores_are_warned_of_beside_a_base(
    gpt2: Checkpoint, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EdgeScores, "complete", False)
    split_circuit(gpt2, replace(perturbed(gpt2), name="mine"), PAIRS[:1], steps=1)
    (warned,) = [record.getMessage() for record in caplog.records if "out of the input" in record.getMessage()]
    assert warned.startswith("mine: ")


def test_models_are_left_as_they_were(gpt2: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    model = gpt2.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    model.transformer.h[0].ln_1.weight.requires_grad_(False)
    circuit = Circuit.random(Graph(2, 2, 2), 20, seed=0)

    def fails(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(scoring, "reader_gradients", fails)
    with pytest.raises(KeyboardInterrupt):
        find_circuit(gpt2, PAIRS)
    monkeypatch.setattr(PairBatch, "metric", fails)
    with pytest.raises(KeyboardInterrupt):
        run_alone(gpt2, PAIRS, [circuit])
    assert model.training
    assert [name for name, each in model.named_parameters() if not each.requires_grad] == [
        "transformer.h.0.ln_1.weight"
    ]
    assert all(each.grad is None for each in model.parameters())
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    model.eval()
    model.requires_grad_(True)


def test_half_precision_is_read_in_float32() -> None:
    checkpoint = tiny_checkpoint("llama", dtype=torch.bfloat16)
    found, exact = find_circuit(checkpoint, RAGGED), find_circuit(tiny_checkpoint("llama"), RAGGED)
    assert float((found.scores - exact.scores).norm() / exact.scores.norm()) < 0.1
    alone = run_alone(checkpoint, RAGGED, [Circuit.full(found.graph), Circuit.empty(found.graph)])
    torch.testing.assert_close(alone.alone[0], alone.clean)
    torch.testing.assert_close(alone.alone[1], alone.corrupted, rtol=0.1, atol=0.1)


# -- what a circuit carries -------------------------------------------------------------------------------------------


def test_faithfulness_divides_means_and_has_random_circuits_beside_it(gpt2: Checkpoint) -> None:
    scores = find_circuit(gpt2, PAIRS)
    circuits = {"full": Circuit.full(scores.graph), "few": scores.top(10), "empty": Circuit.empty(scores.graph)}
    table = faithfulness(gpt2, circuits, PAIRS, random=3, seed=0).set_index("circuit")
    assert table.loc["full", "recovered"] == pytest.approx(1, rel=1e-4)  # float32
    assert table.loc["empty", "recovered"] == pytest.approx(0, abs=1e-4)
    few = table.loc["few"]
    alone = CASES["circuits_from_eap_ig5_bs1"]["topn10"]["logit_diff"]
    gap = sum(CASES["baseline_clean"]) - sum(CASES["baseline_corrupted"])
    assert few["recovered"] == pytest.approx((sum(alone) - sum(CASES["baseline_corrupted"])) / gap, rel=1e-4)
    assert few["random_least"] <= few["random"] <= few["random_most"]
    assert table.loc["full", "random"] == pytest.approx(1, rel=1e-4)  # all edges, however they are drawn
    assert (few["edges"], few["nodes"], few["n"]) == (10, int(scores.top(10).in_circuit.sum()), 2)


def test_a_gap_that_is_gone_is_flagged() -> None:
    graph = Graph(1, 1, 1)
    values = torch.rand(graph.edges.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    base = EdgeScores(graph, values * graph.edges, (2.0, 2.0), (0.0, 0.0), 5, "base", "")
    for last, noted in ((1.0, False), (0.1, True)):
        tuned = EdgeScores(graph, -0.5 * base.scores, (last, last), (0.0, 0.0), 5, "tuned", "")
        row = compare_circuits(base, tuned)
        assert bool(row["note"]) is noted
        assert row["strength"] == pytest.approx(-0.5)
        assert row["spearman_edges"] == pytest.approx(-1)
    chance = overlaps(base, tuned, [0.5])["chance"].iloc[0]
    assert chance == pytest.approx(4 / (2 * 8 - 4))


def test_scores_are_saved_and_opened(gpt2: Checkpoint, tmp_path: Path) -> None:
    found = find_circuit(gpt2, PAIRS)
    again = EdgeScores.load(found.save(tmp_path / "scores"))
    assert torch.equal(found.scores, again.scores)
    assert (again.gap, again.steps, again.writers) == (found.gap, 5, found.writers)
    assert again.nodes().equals(found.nodes())
    assert again.edges(3).equals(found.edges(3))
    (tmp_path / "scores" / "edges.json").write_text("{}")
    with pytest.raises(InputError, match="score the circuit again"):
        EdgeScores.load(tmp_path / "scores")


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "said"),
    [("gemma2", "normalises what attention and MLP write"), ("gemma3", "normalises"), ("neox", "in parallel")],
)
def test_architectures_of_another_graph_are_refused(shape: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        find_circuit(tiny_checkpoint(shape), RAGGED)


def test_norms_after_the_addition_are_refused() -> None:
    config = CONFIGS["opt"]()
    config.do_layer_norm_before = False
    post_norm = replace(tiny_checkpoint("opt"), model=AutoModelForCausalLM.from_config(config).eval())
    with pytest.raises(InputError, match="no circuits are defined for OPTForCausalLM: it has no norm after its last"):
        find_circuit(post_norm, RAGGED)


def test_blocks_that_are_parallel_whatever_their_config_says_are_refused() -> None:
    checkpoint = tiny_checkpoint("neox")
    checkpoint.model.config.use_parallel_residual = False
    with pytest.raises(InputError, match="block 0 is not stream"):
        find_circuit(checkpoint, RAGGED)


def test_a_packed_matrix_in_another_order_is_refused() -> None:
    """GPT-NeoX with blocks one after the other packs by head."""
    checkpoint = tiny_checkpoint("neox")
    checkpoint.model.config.use_parallel_residual = False
    checkpoint.model.config.use_parallel_residual = False
    for block in checkpoint.model.gpt_neox.layers:
        block.use_parallel_residual = False
    with pytest.raises(InputError, match="in an order that is not known"):
        find_circuit(checkpoint, RAGGED)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([TokenPair((1, 2, 3), (1, 2), (3,))], "pair 0: the clean prompt has 3 tokens and the corrupted one 2"),
        ([], "no pairs of prompts"),
        ([TokenPair((1, 2), (1, 3), ())], "no right token"),
        ([TokenPair((1,) * 300, (2,) * 300, (3,))], "has 300 tokens"),
    ],
)
def test_pairs_without_a_circuit_are_refused(pairs: list[TokenPair], said: str) -> None:
    with pytest.raises(InputError, match=said) as told:
        find_circuit(tiny_checkpoint("llama"), pairs)
    assert "\n" not in str(told.value)


def test_other_mistakes_are_told(gpt2: Checkpoint) -> None:
    with pytest.raises(InputError, match="number of steps must be at least 1"):
        find_circuit(gpt2, PAIRS, steps=0)
    with pytest.raises(InputError, match="replace must be one of"):
        run_alone(gpt2, PAIRS, [], replace="means")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="give some as `held_out`"):
        run_alone(gpt2, PAIRS, [], replace="mean")
    with pytest.raises(InputError, match="pair 0 has 5 tokens, those of which the mean is taken have at most 3"):
        run_alone(gpt2, PAIRS, [], replace="mean", held_out=RAGGED[1:2])
    with pytest.raises(InputError, match="replace by one of these"):
        acdc(gpt2, PAIRS, least=0.1, replace="mean")
    with pytest.raises(InputError, match="of another graph"):
        run_alone(gpt2, PAIRS, [Circuit.empty(Graph(3, 2, 2))])
    with pytest.raises(InputError, match="other blocks or heads"):
        split_circuit(gpt2, tiny_checkpoint("llama"), PAIRS)
