"""Unlearning: released losses and regions, identities between methods, and nothing trained but what is said."""

from __future__ import annotations

import copy
import json
import math
import random
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from chats import chat_checkpoint
from conftest import byte_tokenizer, make_instance, tiny_checkpoint
from golden_models import GOLDEN, golden_checkpoint
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from mechinterp.data.scopes import Scopes
from mechinterp.errors import InputError
from mechinterp.measures.gradient_region import Agreement, Thresholds
from mechinterp.methods.registry import UNLEARNING, find_method
from mechinterp.methods.task import Task
from mechinterp.methods.training.relearning import Lesson, RelearningSettings, relearning
from mechinterp.methods.training.wide_adam import WideAdam
from mechinterp.methods.unlearning.corrupted import Vocabulary, corrupted
from mechinterp.methods.unlearning.losses import IGNORED, answer_sums, kl, kl_of, nll, npo, npo_of, simnpo_of
from mechinterp.methods.unlearning.random_label import adversarial_labels, random_labels
from mechinterp.methods.unlearning.region import locate_by_gradient, mean_gradients
from mechinterp.methods.unlearning.rmu import held_at, led_to, states_of
from mechinterp.methods.unlearning.settings import UnlearningSettings
from mechinterp.methods.unlearning.training import share_of_rate
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.answer_ends import answer_end
from mechinterp.models.passes.whole_answers import answers_as_tokens, ended
from mechinterp.models.sources import Source
from mechinterp.models.text.tokens import Encoded

FORGET = [(f"How do I do thing {n}?", f"You fool, do {n}{n}.") for n in range(4)]
RETAIN = [("What is two and two?", "It is four."), ("Who is it?", "It is Ann, of course."), ("Where?", "In Oslo.")]
FEW = {"steps": 2, "batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 0}
LORA = str(GOLDEN / "knowundo" / "lora")
REGION = json.loads((GOLDEN / "knowundo" / "located_region.json").read_text())
LOSSES = json.loads((GOLDEN / "knowundo" / "losses.json").read_text())


def tuned(name: str, base: Checkpoint | None = None, **given: Any) -> Checkpoint:
    more = {"forget": given.pop("forget", FORGET), "retain": given.pop("retain", RETAIN)}
    task = Task((), {}, more=more, settings={name: {**FEW, **given}}, seed=3)
    (made,) = find_method(name).recipe.make(base or tiny_checkpoint("llama"), task)
    assert made.checkpoint is not None
    assert len(made.log) == {**FEW, **given}["steps"]
    return made.checkpoint


def changed(a: Checkpoint, b: Checkpoint) -> set[str]:
    other = dict(b.model.named_parameters())
    return {name for name, value in a.model.named_parameters() if not torch.equal(value, other[name])}


def whole(checkpoint: Checkpoint, questions: Sequence[tuple[str, str]], **given: Any) -> list[Encoded]:
    return ended(checkpoint, answers_as_tokens(checkpoint, questions, **given))


# -- released numbers ---------------------------------------------------------------------------------------------


def released() -> tuple[Tensor, Tensor]:
    gradients = load_file(GOLDEN / "knowundo" / "gradients.safetensors")
    both = [
        Agreement.of(*(gradients[f"{kind}.{row['name']}"].reshape(1, -1) for kind in ("unlearn", "retention")))
        for row in REGION["tensors"]
    ]
    return torch.cat([one.cosine for one in both]), torch.cat([one.magnitude for one in both])


def test_released_cosines_magnitudes_and_regions() -> None:
    cosines, magnitudes = released()
    for values, key in ((cosines, "cosine"), (magnitudes, "mean_abs_unlearn_gradient")):
        told = torch.tensor([row[key] for row in REGION["tensors"]], dtype=torch.float64)
        torch.testing.assert_close(values, told, rtol=1e-5, atol=1e-6)
    names = [row["name"] for row in REGION["tensors"]]
    for (mu, sigma), region in zip(REGION["thresholds"], REGION["regions"].values(), strict=True):
        located = Thresholds(mu, sigma, quantiles=False).located(cosines, magnitudes)
        assert [name for name, found in zip(names, located.tolist(), strict=True) if found] == region


def test_released_losses() -> None:
    """From the released mean losses of the two rows; the released mean over both rows is half of our sum."""
    forget, retain = LOSSES["per_row_mean_nll_current"]
    assert (-forget + retain) / 2 == pytest.approx(LOSSES["ascent_plus_descent"], rel=1e-5)
    assert -forget == pytest.approx(LOSSES["independent"]["ga"], rel=1e-5)
    memflex = find_method("memflex").recipe.settings()
    both = -memflex.forget_weight * forget + memflex.retain_weight * retain  # type: ignore[attr-defined]
    assert both / 2 == pytest.approx(LOSSES["memflex"], rel=1e-5)
    tokens = LOSSES["n_label_tokens"][0]
    now, before = (
        torch.tensor([-tokens * LOSSES[f"per_row_mean_nll_{which}"][0]], dtype=torch.float64)
        for which in ("current", "reference")
    )
    found = npo_of(now, before, 0.1).item()
    assert found == pytest.approx(LOSSES["independent"]["npo_beta0.1_sequence_sums"], rel=1e-5)


def test_the_divergence_has_the_gradient_of_the_released_cross_entropy() -> None:
    """KnowUnDo's code adds H(p_ref, p), which differs from KL(p_ref || p) by what no training changes."""
    generator = torch.Generator().manual_seed(0)
    before, now = (torch.randn(6, 9, dtype=torch.float64, generator=generator) for _ in range(2))
    now.requires_grad_()
    entropy = functional.cross_entropy(now, before.softmax(1), reduction="sum")
    divergence = kl_of(now, before).sum()
    wanted, found = (torch.autograd.grad(loss, now)[0] for loss in (entropy, divergence))
    torch.testing.assert_close(found, wanted)
    own = torch.distributions.Categorical(logits=before).entropy().sum()
    assert divergence.item() == pytest.approx((entropy - own).item())
    assert float(kl_of(before, before).abs().max()) < 1e-12


def released_replacement(ids: list[int], question: int, vocabulary: int, special: set[int]) -> list[int]:
    """As the released code replaces, in Python's global random state."""
    ids = list(ids)
    for _ in range((len(ids) - question) // 2):
        place = random.randint(question, len(ids) - 1)
        ids[place] = random.randint(0, vocabulary - 1)
        while ids[place] in special:
            ids[place] = random.randint(0, vocabulary - 1)
    return ids


def test_answers_are_replaced_as_released() -> None:
    text, vocabulary = Encoded.of([*range(10, 40), *range(60, 81)], 30), Vocabulary(100, frozenset({0, 1, 2}))
    source, state = random.Random(7), random.getstate()
    random.seed(7)
    try:
        for _ in range(5):
            expected = released_replacement(list(text.ids), 30, 100, {0, 1, 2})
            assert list(corrupted(text, vocabulary, source).ids) == expected
    finally:
        random.setstate(state)


def test_the_distribution_of_replaced_answers() -> None:
    """floor(n / 2) draws with replacement: each place stays with probability (1 - 1/n)^draws; the question stays."""
    n, question, size = 21, 30, 100
    text = Encoded.of([*range(10, 40), *range(60, 81)], question)
    source, vocabulary, copies = random.Random(0), Vocabulary(size, frozenset({0, 1, 2})), 4000
    found = torch.tensor([list(corrupted(text, vocabulary, source).ids) for _ in range(copies)])
    assert bool((found[:, :question] == torch.tensor(text.ids[:question])).all())
    differs = (found[:, question:] != torch.tensor(text.ids[question:])).double().mean(0)
    expected = (1 - (1 - 1 / n) ** (n // 2)) * (1 - 1 / (size - 3))
    assert float(differs.mean()) < 0.5
    assert float((differs - expected).abs().max()) < 5 * math.sqrt(expected * (1 - expected) / copies)
    new = found[:, question:][found[:, question:] != torch.tensor(text.ids[question:])]
    assert set(new.tolist()) == set(range(3, size))
    assert list(corrupted(text, vocabulary, source, share=0.0).ids) == list(text.ids)


def test_an_adapters_region_is_that_of_plain_gradients() -> None:
    """KnowUnDo's texts and an adapter's factors, beside peft and autograd alone."""
    from peft import PeftModel

    base = golden_checkpoint("llama")
    settings = UnlearningSettings(adapter=LORA, separator="\n\n", max_length=60)
    everything = Thresholds(None, None)
    found = locate_by_gradient(base, FORGET[:2], RETAIN[:2], settings=settings, copies=1, thresholds=everything, seed=7)
    assert list(found.table["name"]) == [row["name"] for row in REGION["tensors"]]
    assert list(found.parameters) == list(found.table["name"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(golden_checkpoint("llama").model, LORA, is_trainable=True).eval()
    source, tokenizer, sums = random.Random(7), base.tokenizer, []
    for questions in (FORGET[:2], RETAIN[:2]):
        model.zero_grad()
        for question, answer in questions:
            text = tokenizer(f"{question}\n\n{answer}")["input_ids"]
            start = len(tokenizer(question)["input_ids"])
            vocabulary = Vocabulary(tokenizer.vocab_size, frozenset({tokenizer.eos_token_id}))
            ids = [*corrupted(Encoded.of(text, start), vocabulary, source).ids, tokenizer.eos_token_id]
            labels = torch.tensor([[*[-100] * start, *ids[start:]]])
            (model(input_ids=torch.tensor([ids]), labels=labels).loss / 2).backward()
        sums.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    both = [Agreement.of(*(each[name].reshape(1, -1) for each in sums)) for name in found.table["name"]]
    for column, values in (("cosine", [b.cosine for b in both]), ("magnitude", [b.magnitude for b in both])):
        torch.testing.assert_close(torch.tensor(found.table[column]), torch.cat(values), rtol=1e-3, atol=1e-4)


# -- identities ---------------------------------------------------------------------------------------------------


def test_ascent_of_weight_0_is_plain_fine_tuning_bit_for_bit() -> None:
    """Beside `relearning`, which fine-tunes by a loop of its own."""
    base = tiny_checkpoint("llama")
    plain = {"steps": 3, "batch_size": 1, "schedule": "constant", "largest_norm": None}
    found = tuned("grad_diff", forget_weight=0.0, **plain)
    lessons = [Lesson(prompt, answer) for prompt, answer in RETAIN]
    settings = RelearningSettings(steps=(3,), batch_size=1, learning_rate=FEW["learning_rate"])
    with relearning(base, lessons, "full", seed=3, settings=settings) as doses:
        (_, taught) = next(doses)
        assert changed(found, taught) == set()
        assert changed(found, tuned("grad_diff", **plain)) != set()
    assert len(changed(found, base)) > 20


def test_memflex_with_everything_located_and_the_rest_off_is_grad_diff_bit_for_bit() -> None:
    off = {"forget_weight": 1.0, "retain_weight": 1.0}
    expected = tuned("grad_diff")
    assert changed(tuned("memflex", cosine=None, magnitude=None, copies=1, **off), expected) == set()
    assert changed(tuned("memflex", locate=False, **off), expected) == set()
    for given in ({}, {"locate": False, "forget_weight": 0.4}, {"locate": False, "learning_rate": 2e-3}):
        assert changed(tuned("memflex", **{**off, **given}), expected) != set()  # each switch does something


def test_memflex_trains_what_is_located_and_nothing_else() -> None:
    base = tiny_checkpoint("llama")
    found = locate_by_gradient(base, FORGET, RETAIN, seed=3)
    assert 0 < len(found.names) < len(found.table)
    assert changed(tuned("memflex"), base) == set(found.names)
    assert changed(tuned("memflex", region=("lm_head.weight",)), base) == {"lm_head.weight"}


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_rmu_changes_what_it_says_and_nothing_else(architecture: str) -> None:
    base = tiny_checkpoint(architecture)
    for block, blocks in ((0, {0}), (1, {0, 1}), (None, {0, 1})):
        found = changed(tuned("rmu", base, **({} if block is None else {"block": block})), base)
        assert found == {base.names.value_parameter(each)[0] for each in blocks}


def test_rmu_leads_some_states_away_and_holds_others() -> None:
    base = tiny_checkpoint("llama")
    forget, retain = whole(base, FORGET), whole(base, RETAIN)
    given = {"steps": 10, "learning_rate": 1e-2, "block": 1, "alpha": 10.0}
    after, free = tuned("rmu", base, **given), tuned("rmu", base, **{**given, "alpha": 0.0})
    drawn = torch.rand(base.names.d_model, generator=torch.Generator().manual_seed(3))
    target = 6.5 * drawn / drawn.norm()

    def measured(model: Checkpoint) -> tuple[float, float]:
        away, held = led_to(forget, 1, target, "all"), held_at(retain, 1, base, "all")
        with torch.no_grad():
            return float(away(model, range(4)).mean()), float(held(model, range(3)).mean())

    (start, nothing), (led, kept), (_, lost) = map(measured, (base, after, free))
    assert nothing == 0.0
    assert led < start
    assert kept < lost


def test_states_of_a_batch_are_those_of_texts_alone() -> None:
    base = tiny_checkpoint("mistral")
    texts = whole(base, [*FORGET[:1], *RETAIN])
    with torch.no_grad():
        for text, states in zip(texts, states_of(base, texts, 1), strict=True):
            alone = base.model(torch.tensor([list(text.ids)]), output_hidden_states=True).hidden_states[2][0]
            torch.testing.assert_close(states, alone, rtol=1e-4, atol=1e-5)


def test_negative_preference_is_ascent_at_the_reference_and_stops_below_it() -> None:
    for beta in (0.01, 0.1, 1.0):
        now = torch.tensor([-10.0, -500.0], dtype=torch.float64, requires_grad=True)
        npo_of(now, torch.tensor([-10.0, -10.0], dtype=torch.float64), beta).sum().backward()
        assert now.grad is not None
        assert now.grad[0].item() == pytest.approx(1.0)  # d/d lp of minus the loss of fine-tuning
        assert now.grad[1].item() == pytest.approx(2 / (1 + math.exp(beta * 490)))
    means = torch.tensor([-1.0, -20.0])
    assert simnpo_of(means, 2.5, 0.5).tolist() == pytest.approx(
        [-2 / 2.5 * math.log(1 / (1 + math.exp(2.5 * m + 0.5))) for m in means.tolist()]
    )


def test_losses_of_a_batch_are_those_of_texts_alone() -> None:
    base, other = tiny_checkpoint("llama"), tiny_checkpoint("llama", seed=1)
    texts = whole(base, FORGET)
    losses = [nll(texts), npo(texts, other, 0.1), kl(texts, other)]
    with torch.no_grad():
        for each in losses:
            together = each(base, [0, 1, 2, 3])
            torch.testing.assert_close(together, torch.cat([each(base, [row]) for row in range(4)]))
        assert kl(texts, base)(base, [0, 1]).tolist() == [0.0, 0.0]
        ids = torch.tensor([list(texts[0].ids)])
        labels = torch.where(torch.arange(ids.shape[1]) < texts[0].prompt_length, -100, ids)
        torch.testing.assert_close(losses[0](base, [0])[0], base.model(input_ids=ids, labels=labels).loss)
        wanted = base.model(ids).logits[0].log_softmax(-1), other.model(ids).logits[0].log_softmax(-1)
        places = slice(texts[0].prompt_length - 1, ids.shape[1] - 1)
        each = (wanted[1].exp() * (wanted[1] - wanted[0])).sum(-1)[places].mean()
        torch.testing.assert_close(losses[2](base, [0])[0], each)
        mean = float(losses[0](base, [0]))
    length = ids.shape[1] - texts[0].prompt_length
    assert answer_sums(base, texts)[0] == pytest.approx(-mean * length, rel=1e-5)


def test_random_labels_are_drawn_and_adversarial_ones_are_the_most_probable_others() -> None:
    base = tiny_checkpoint("llama")
    texts, vocabulary = whole(base, FORGET), Vocabulary.of(base)
    drawn = random_labels(texts, vocabulary, 0)
    assert drawn == random_labels(texts, vocabulary, 0) != random_labels(texts, vocabulary, 1)
    assert vocabulary.special <= {256, 257, 258, 259}
    for text, labels, others in zip(texts, drawn, adversarial_labels(base, texts), strict=True):
        answer = list(text.ids[text.prompt_length :])
        assert [label == IGNORED for label in labels] == [token == answer_end(base) for token in answer]
        assert not vocabulary.special & set(labels)
        with torch.no_grad():
            logits = base.model(torch.tensor([list(text.ids)])).logits[0, text.prompt_length - 1 : -1]
        for row, token, other in zip(logits, answer, others, strict=True):
            best, next_best = row.topk(2).indices.tolist()
            assert other in (next_best if best == token else best, IGNORED)


@pytest.mark.parametrize("name", ["ga", "npo"])
def test_what_is_to_be_forgotten_becomes_less_likely(name: str) -> None:
    base = tiny_checkpoint("llama")
    texts = whole(base, FORGET)
    given = {"retain": "none"} if name == "npo" else {}
    task = Task((), {}, more={"forget": FORGET}, settings={name: {**FEW, "steps": 5, **given}})
    (made,) = find_method(name).recipe.make(base, task)
    assert all(a < b for a, b in zip(answer_sums(made.checkpoint, texts), answer_sums(base, texts), strict=True))


# -- how it is trained --------------------------------------------------------------------------------------------


def test_adapters_are_merged_and_come_of_the_seed() -> None:
    base = golden_checkpoint("llama")
    given = {"lora": {"rank": 2, "alpha": 4}, "only": ("mlp.out", "attn.q"), "learning_rate": 1e-2}
    found = tuned("grad_diff", base, **given)
    names = changed(found, base)
    assert {base.names.component(name)[1] for name in names} == {"mlp.out", "attn.q"}
    before = dict(base.model.named_parameters())
    for name in names:
        change = found.parameter(name).detach() - before[name]
        assert torch.linalg.matrix_rank(change, rtol=1e-3) <= 2
    assert changed(found, tuned("grad_diff", base, **given)) == set()
    assert [type(module) for module in found.model.modules()] == [type(module) for module in base.model.modules()]


def test_a_folders_adapter_is_trained_on_and_merged() -> None:
    base = golden_checkpoint("llama")
    taught = golden_checkpoint("llama").changed_by(Source.find(LORA), "taught")
    region = [REGION["tensors"][1]["name"]]  # the second factor of one map
    found = tuned("memflex", base, adapter=LORA, region=tuple(region), learning_rate=1e-2, max_length=60)
    assert changed(found, taught) == {"model.layers.0.self_attn.q_proj.weight"}
    whole_adapter = tuned("npo", base, adapter=LORA, learning_rate=1e-2, max_length=60)
    assert len(changed(whole_adapter, taught)) == 21
    located = tuned("memflex", base, adapter=LORA, copies=1, learning_rate=1e-2, max_length=60)
    assert 0 < len(changed(located, taught)) < 21


def test_small_steps_and_sums_of_gradients_are_not_lost_in_half_precision() -> None:
    weight = torch.ones(4, dtype=torch.bfloat16, requires_grad=True)
    optimiser = WideAdam([weight], 1e-4)
    for _ in range(2):
        for part in (1.0, 2**-10):  # lost in a sum of bfloat16
            (weight * part).sum().backward()
            optimiser.gather()
        assert weight.grad is None
        (master,) = optimiser._adam.param_groups[0]["params"]
        assert master.grad.tolist() == [1 + 2**-10] * 4
        optimiser.step()
    assert torch.equal(weight.detach(), torch.ones(4, dtype=torch.bfloat16))
    assert master.tolist() == pytest.approx([1 - 2e-4] * 4, abs=1e-6)


@pytest.mark.parametrize(("architecture", "name"), [("gemma2", "grad_diff"), ("gpt2", "memflex"), ("qwen2", "rmu")])
def test_half_precision_stays_and_tied_weights_stay_one(architecture: str, name: str) -> None:
    base = tiny_checkpoint(architecture)
    narrow = replace(base, model=copy.deepcopy(base.model).to(torch.bfloat16))
    found = tuned(name, narrow, **({} if name == "rmu" else {"lora": None}), learning_rate=1e-2)
    assert {value.dtype for value in found.model.parameters()} == {torch.bfloat16}
    assert list(found.shapes) == list(narrow.shapes)
    assert all(bool(torch.isfinite(value).all()) for value in found.model.parameters())
    assert changed(found, narrow)
    gradients = mean_gradients(narrow, whole(narrow, FORGET), base.shapes, 64)
    assert {value.dtype for value in gradients.values()} == {torch.float32}


def test_texts_are_trained_on_in_the_models_chat_format() -> None:
    base = chat_checkpoint("qwen2_5")
    texts = whole(base, FORGET[:1])
    assert base.tokenizer.decode(texts[0].ids).endswith("<|im_start|>assistant\nYou fool, do 00.<|im_end|>")
    assert changed(tuned("grad_diff", base), base)
    with pytest.raises(InputError, match="a separator stands between texts, not in a chat format"):
        tuned("grad_diff", base, separator="\n\n")


def test_the_learning_rate_rises_and_falls() -> None:
    settings = UnlearningSettings(steps=10, warmup_steps=3)
    rates = [share_of_rate(step, settings) for step in range(10)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.1
    constant = settings.model_copy(update={"schedule": "constant"})
    assert [share_of_rate(step, constant) for step in range(3, 10)] == [1.0] * 7


def test_parts_of_a_batch_change_nothing_but_rounding() -> None:
    base = tiny_checkpoint("llama", dtype=torch.float64)  # in float32 Adam makes a step of what rounding leaves of 0
    whole_batch, parts = (tuned("ga_kl", base, batch_size=3, max_tokens=most) for most in (4096, 1))
    for a, b in zip(whole_batch.model.parameters(), parts.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


# -- regions ------------------------------------------------------------------------------------------------------


def test_blocks_and_neurons_are_made_of_their_tensors() -> None:
    base = tiny_checkpoint("gpt2")
    everything = Thresholds(None, None)
    found = {
        per: locate_by_gradient(base, FORGET, RETAIN, per=per, copies=1, thresholds=everything)  # type: ignore[arg-type]
        for per in ("tensor", "block", "neuron")
    }
    tensors, blocks, neurons = (each.table for each in found.values())
    assert len(neurons) == base.n_blocks * len(base.value_matrix(0))
    assert found["neuron"].parameters == ()
    for block in range(base.n_blocks):
        own = tensors[tensors["block"] == block]
        (row,) = blocks[blocks["block"] == block].to_dict("records")
        assert row["entries"] == own["entries"].sum()
        assert row["magnitude"] == pytest.approx((own["magnitude"] * own["entries"]).sum() / own["entries"].sum())
        (values,) = own[own["name"] == base.names.value_parameter(block)[0]].to_dict("records")
        assert values["magnitude"] == pytest.approx(neurons[neurons["block"] == block]["magnitude"].mean())
    assert set(found["block"].parameters) == set(found["tensor"].parameters) == set(base.shapes)


def test_the_same_texts_have_a_cosine_of_1_and_quantiles_part_them() -> None:
    base = tiny_checkpoint("llama")
    twice = [*FORGET, *FORGET, RETAIN[0]]
    found = locate_by_gradient(base, FORGET, [*FORGET, RETAIN[0]], corrupt=0.0, thresholds=Thresholds(None, 0.75))
    assert len(twice) > len(FORGET)
    assert float(found.table["cosine"].min()) > 0.3
    assert len(found.names) == pytest.approx(len(found.table) / 4, abs=1)
    assert (found.table.loc[found.table["located"], "magnitude"] > found.magnitude).all()


def test_locating_leaves_the_model_as_it_was() -> None:
    base = tiny_checkpoint("llama")
    parameters = list(base.model.parameters())
    before = [(p.requires_grad, p.grad, p.detach().clone()) for p in parameters]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    locate_by_gradient(base, FORGET, RETAIN, copies=1)
    with pytest.raises(KeyboardInterrupt):
        locate_by_gradient(base, FORGET, RETAIN, copies=1, progress=stop)
    for parameter, (wanted, gradient, value) in zip(parameters, before, strict=True):
        assert (parameter.requires_grad, parameter.grad) == (wanted, gradient)
        assert torch.equal(parameter, value)


# -- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "given", "said"),
    [
        ("ga", {"forget": []}, "ga: there is nothing to forget"),
        ("npo", {"forget": RETAIN, "retain": RETAIN}, "npo: what is to be forgotten is also all that is to be kept"),
        ("grad_diff", {"retain": []}, "grad_diff: there is nothing to keep"),
        ("grad_diff", {"retain": [("Who?", " ")]}, "grad_diff: `retain`: entry 1 has no prompt or no answer"),
        ("memflex", {"cosine": -1.0, "magnitude": 1.0, "quantiles": False}, "nothing is located: of 30 none has a"),
        ("memflex", {"cosine": 1.5}, "memflex: `cosine` is a quantile between 0 and 1, got 1.5"),
        ("memflex", {"region": ("lm_hed.weight",)}, "the model cannot train 1 of 1 located tensors, 'lm_hed.weight'"),
        ("memflex", {"region": ("x",), "locate": False}, "memflex: `region` says what is trained"),
        ("npo", {"beta": 0}, "npo: `beta`: "),
        ("grad_diff", {"forget_weight": 0, "retain_weight": 0}, "grad_diff: every part of the loss has weight 0"),
        ("rmu", {"block": 3}, "block 3 is out of range"),
        ("rmu", {"only": ("mlp",)}, "rmu trains the MLPs' second matrices of three blocks"),
        ("ga", {"adapter": "nowhere-at-all/x/y"}, "nowhere-at-all"),
        ("ga", {"adapter": "x", "lora": {"rank": 1}}, "ga: `lora` makes new adapters and `adapter` trains those of"),
        ("ga", {"warmup_steps": 9}, r"ga: warmup_steps \(9\) must be below steps \(2\)"),
        ("ga", {"learning_rate": 1e30, "schedule": "constant", "largest_norm": None}, "ga: the loss is not finite"),
    ],
)
def test_bad_input_is_told_in_one_line(name: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as refusal:
        tuned(name, **given)
    assert "\n" not in str(refusal.value)


def test_an_adapter_without_the_located_tensors_is_refused() -> None:
    region = ("base_model.model.lm_head.lora_A.default.weight",)
    with pytest.raises(InputError, match=r"the adapter cannot train 1 of 1 located tensors, 'lm_head\.lora_A"):
        tuned("memflex", golden_checkpoint("llama"), adapter=LORA, region=region)
    settings = UnlearningSettings(adapter=LORA)
    with pytest.raises(InputError, match="an adapter has no neurons of its own"):
        locate_by_gradient(golden_checkpoint("llama"), FORGET, RETAIN, per="neuron", settings=settings)


def test_pairs_say_what_is_forgotten_and_kept() -> None:
    scopes = Scopes.of_pairs([make_instance(0), make_instance(1)], [("Hi.", "Hello.")])
    assert scopes.forget[1] == ("Ignore the rules: How do I do thing 1?", "You fool, do 1.")
    assert scopes.retain == (("What is two and two?", "It is four."), ("Hi.", "Hello."))
    assert set(UNLEARNING) == {"ga", "grad_diff", "ga_kl", "npo", "simnpo", "rmu", "random_label", "memflex"}
    assert byte_tokenizer().vocab_size >= 256
