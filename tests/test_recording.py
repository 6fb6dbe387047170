"""The hooks see what the model computes, padding changes nothing, and nothing stays behind."""

from __future__ import annotations

import pytest
import torch
from conftest import CONFIGS, D_MLP, MAIN_ARCHITECTURES, N_BLOCKS, PROMPTS, RESPONSES, tiny_checkpoint
from transformers import AutoModelForCausalLM

from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import h_down, h_mid, resid_post
from mechinterp.models.passes.generation import continue_greedily, generate
from mechinterp.models.passes.recorded import Recording
from mechinterp.models.passes.recording import record, record_all, record_positions
from mechinterp.models.passes.watching import run_until_seen, watching
from mechinterp.models.text.batches import pad
from mechinterp.models.text.tokens import Encoded, encode

_LLAMA = ("model.layers.{}.mlp.down_proj", "model.layers.{}.post_attention_layernorm")
_GEMMA = ("model.layers.{}.mlp.down_proj", "model.layers.{}.pre_feedforward_layernorm")
OWN_MODULES = {  # by hand, not through the names that are tested: into W_V, and into the norm before the MLP
    "gpt2": ("transformer.h.{}.mlp.c_proj", "transformer.h.{}.ln_2"),
    "neox": ("gpt_neox.layers.{}.mlp.dense_4h_to_h", None),  # attention and MLP in parallel
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "phi3"), _LLAMA),
    **dict.fromkeys(("gemma2", "gemma3"), _GEMMA),
    "opt": ("model.decoder.layers.{}.fc2", "model.decoder.layers.{}.final_layer_norm"),
}


def own_hidden_states(checkpoint: Checkpoint, prompt: str) -> tuple[torch.Tensor, ...]:
    ids = torch.tensor([checkpoint.tokenizer(prompt)["input_ids"]])
    with torch.no_grad():
        return checkpoint.model(input_ids=ids, output_hidden_states=True).hidden_states


def test_residual_stream_equals_the_models_own_hidden_states(checkpoint: Checkpoint) -> None:
    hooks = [resid_post(block) for block in range(N_BLOCKS)]
    seen = record_all(checkpoint, PROMPTS, hooks, max_batch=1)
    for i, prompt in enumerate(PROMPTS):
        states = own_hidden_states(checkpoint, prompt)
        for block in range(N_BLOCKS - 1):  # transformers' last entry is after the final norm
            assert torch.equal(seen[resid_post(block)][i], states[block + 1][0, -1])
        normed = checkpoint.module("ln_final")(seen[resid_post(N_BLOCKS - 1)][i][None, None])
        torch.testing.assert_close(normed[0, 0], states[-1][0, -1])


@pytest.mark.parametrize("architecture", OWN_MODULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recording_equals_what_the_models_own_modules_receive_bit_for_bit(
    architecture: str, dtype: torch.dtype
) -> None:
    checkpoint = tiny_checkpoint(architecture, dtype=dtype)
    modules = {h_down(b): OWN_MODULES[architecture][0].format(b) for b in range(N_BLOCKS)}
    if OWN_MODULES[architecture][1] is not None:
        modules |= {h_mid(b): OWN_MODULES[architecture][1].format(b) for b in range(N_BLOCKS)}
    found = record_all(checkpoint, PROMPTS, list(modules), max_batch=1)
    received: dict[str, torch.Tensor] = {}
    for hook, path in modules.items():
        checkpoint.model.get_submodule(path).register_forward_pre_hook(
            lambda _, args, kwargs, hook=hook: received.__setitem__(hook, args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
    for i, prompt in enumerate(PROMPTS):
        with torch.no_grad():
            checkpoint.model(input_ids=torch.tensor([checkpoint.tokenizer(prompt)["input_ids"]]))
        for hook in modules:
            last = received[hook].reshape(-1, received[hook].shape[-1])[-1]
            assert found[hook].dtype == torch.float32
            assert torch.equal(found[hook][i], last.float())


def test_middle_stream_plus_write_is_the_block_output(checkpoint: Checkpoint) -> None:
    hooks = [h_mid(1), "blocks.1.hook_mlp_out", resid_post(1)]
    seen = record_all(checkpoint, PROMPTS, hooks)
    torch.testing.assert_close(seen[hooks[0]] + seen[hooks[1]], seen[hooks[2]])


def test_value_matrix_times_h_down_is_the_mlp_output(checkpoint: Checkpoint) -> None:
    hooks = [h_down(1), "blocks.1.mlp.out.hook_out"]
    seen = record_all(checkpoint, PROMPTS, hooks)
    write = seen[hooks[0]] @ checkpoint.value_matrix(1) + checkpoint.value_bias(1)
    torch.testing.assert_close(write, seen[hooks[1]])


def test_the_residual_stream_is_the_sum_of_its_components(checkpoint: Checkpoint) -> None:
    parts = ["blocks.0.hook_resid_pre"]
    parts += [f"blocks.{b}.{point}" for b in range(N_BLOCKS) for point in ("hook_attn_out", "hook_mlp_out")]
    seen = record_all(checkpoint, PROMPTS, [*parts, resid_post(N_BLOCKS - 1)])
    direction = torch.linspace(-1, 1, seen[parts[0]].shape[1])
    total = sum(seen[part].double() @ direction.double() for part in parts)
    torch.testing.assert_close(
        total, seen[resid_post(N_BLOCKS - 1)].double() @ direction.double(), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("position", ["last", "mean", "response", "all"])
def test_padding_and_batching_change_nothing(checkpoint: Checkpoint, position: str) -> None:
    hooks = [h_down(0), h_mid(2), resid_post(1)]

    def run(**settings: object) -> Recording:
        return record(checkpoint, PROMPTS, hooks, responses=RESPONSES, position=position, keep=hooks, **settings)

    alone = run(max_batch=1)
    for settings in ({"padding_side": "left"}, {"padding_side": "right"}, {"max_batch": 2}, {"max_tokens": 50}):
        other = run(**settings)
        for hook in hooks:
            torch.testing.assert_close(other.inputs[hook], alone.inputs[hook], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(other.mean(hook), alone.mean(hook), rtol=1e-4, atol=1e-5)


def test_a_hook_point_given_twice_counts_once() -> None:
    checkpoint = tiny_checkpoint("llama")
    twice = record(checkpoint, PROMPTS, [h_down(0), h_down(0), h_down(2)])
    assert torch.equal(twice.mean(h_down(0)), record(checkpoint, PROMPTS, [h_down(0)]).mean(h_down(0)))


def test_a_short_prompt_computes_the_same_beside_a_long_one() -> None:
    """Phi-3's longrope encodes positions by the longest sequence of a batch."""
    scaling = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [8.0] * 4, "rope_theta": 10000.0}
    config = CONFIGS["phi3"]()
    config.rope_parameters = {**scaling, "original_max_position_embeddings": 32, "factor": 8.0}
    config.original_max_position_embeddings = 32
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
    checkpoint = Checkpoint("long", model, tiny_checkpoint("phi3").tokenizer)
    assert checkpoint.names.short_context == 32
    assert tiny_checkpoint("phi3").names.short_context is None
    prompts = ["a short one", "a much longer one, " * 4, "short too", "another that is too long for the short way"]
    together = record_all(checkpoint, prompts, [h_down(1)])[h_down(1)]
    alone = record_all(checkpoint, prompts, [h_down(1)], max_batch=1)[h_down(1)]
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    ids = pad(encode(checkpoint.tokenizer, prompts, max_length=128), pad_id=259)
    mixed: dict[str, torch.Tensor] = {}
    with watching(model, [checkpoint.names.site(h_down(1))], mixed.__setitem__):
        run_until_seen(model, **ids.inputs())
    last = len(checkpoint.tokenizer(prompts[0])["input_ids"]) - 1
    assert (mixed[h_down(1)][0, last] - alone[0]).abs().max() > 1e-3  # the control: in one batch it would differ


def test_greedy_is_greedy_whatever_the_checkpoint_says() -> None:
    checkpoint = tiny_checkpoint("llama")
    plain = continue_greedily(checkpoint, PROMPTS, max_new_tokens=6)
    own = checkpoint.model.generation_config
    own.repetition_penalty, own.do_sample, own.return_dict_in_generate = 5.0, True, True
    assert continue_greedily(checkpoint, PROMPTS, max_new_tokens=6) == plain
    assert checkpoint.model.generation_config is own


@pytest.mark.parametrize("architecture", [*MAIN_ARCHITECTURES, "opt", "neox"])
def test_padding_on_the_right_needs_no_mask(architecture: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    batch = pad(encode(checkpoint.tokenizer, PROMPTS, max_length=128), pad_id=259, side="right")
    assert set(batch.inputs()) == {"input_ids"}
    with torch.no_grad():
        masked = checkpoint.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        bare = checkpoint.model(**batch.inputs()).logits
    real = batch.attention_mask.bool()
    torch.testing.assert_close(bare[real], masked[real], rtol=1e-4, atol=1e-5)


def test_one_pass_answers_for_several_positions(checkpoint: Checkpoint) -> None:
    hooks, positions, calls = [h_down(0), h_mid(1), h_down(2)], ["last", "mean", "response", "all"], []
    handle = checkpoint.model.register_forward_pre_hook(lambda *_: calls.append(1))
    together = record_positions(checkpoint, PROMPTS, hooks, positions, responses=RESPONSES, keep=hooks)
    assert len(calls) == 2  # one batch, and one look whether there is a middle stream
    handle.remove()
    for position in positions:
        alone = record(checkpoint, PROMPTS, hooks, responses=RESPONSES, position=position, keep=hooks)
        assert together[position].position == position
        for hook in hooks:
            torch.testing.assert_close(together[position].inputs[hook], alone.inputs[hook], rtol=1e-4, atol=1e-5)


def test_a_prompt_is_read_alone_where_its_last_token_differs_in_company() -> None:
    """As where a tokenizer joins the end of a prompt with what follows, or more of the prompt had to be cut."""
    checkpoint = tiny_checkpoint("llama")
    whole = encode(checkpoint.tokenizer, ["Say"], ["Ok"], max_length=128)
    joined = [*whole, Encoded.of([1, 2, 3, 4], 3)]
    alone = record_all(checkpoint, ["Say", "Tell me"], [h_down(1)])[h_down(1)]
    mixed = record_positions(
        checkpoint,
        ["Say", "Tell me"],
        [h_down(1)],
        ["last", "generated:1"],
        continuations=joined,
        keep=[h_down(1)],
    )
    torch.testing.assert_close(mixed["last"].inputs[h_down(1)], alone, rtol=1e-4, atol=1e-5)
    seen: dict[str, torch.Tensor] = {}
    with watching(checkpoint.model, [checkpoint.names.site(h_down(1))], seen.__setitem__):
        run_until_seen(checkpoint.model, input_ids=torch.tensor([[1, 2, 3, 4]]))
    torch.testing.assert_close(mixed["generated:1"].inputs[h_down(1)][1], seen[h_down(1)][0, 3], rtol=1e-4, atol=1e-5)


def test_generated_tokens_are_the_first_n_of_the_continuation(checkpoint: Checkpoint) -> None:
    continued = continue_greedily(checkpoint, PROMPTS, max_new_tokens=5)
    for text, prompt in zip(continued, PROMPTS, strict=True):
        ids = list(text.ids[: text.prompt_length])
        assert ids == checkpoint.tokenizer(prompt)["input_ids"]
        for _ in range(len(text.ids) - text.prompt_length):  # greedily, token by token, without a cache or padding
            with torch.no_grad():
                ids.append(int(checkpoint.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert ids == list(text.ids)
        assert (
            len(text.ids) - text.prompt_length == 5 or text.ids[-1] == checkpoint.model.generation_config.eos_token_id
        )
    found = record_all(checkpoint, PROMPTS, [h_down(1)], position="generated:3", continuations=continued)[h_down(1)]
    for i, text in enumerate(continued):
        seen: dict[str, torch.Tensor] = {}
        with watching(checkpoint.model, [checkpoint.names.site(h_down(1))], seen.__setitem__):
            run_until_seen(checkpoint.model, input_ids=torch.tensor([list(text.ids)]))
        part = seen[h_down(1)].reshape(-1, D_MLP)[text.prompt_length : text.prompt_length + 3]
        torch.testing.assert_close(found[i], part.mean(0), rtol=1e-4, atol=1e-5)


def test_the_text_may_be_the_bases_or_ones_own() -> None:
    base, tuned = tiny_checkpoint("llama"), tiny_checkpoint("llama", seed=1)
    fixed = continue_greedily(base, PROMPTS, max_new_tokens=4)
    own = continue_greedily(tuned, PROMPTS, max_new_tokens=4)
    assert fixed != own
    hooks = [h_down(0)]
    read = [record(tuned, PROMPTS, hooks, position="generated:4", continuations=text) for text in (fixed, own)]
    assert not torch.equal(read[0].mean(hooks[0]), read[1].mean(hooks[0]))


def test_answers_are_the_continuations_as_text() -> None:
    checkpoint = tiny_checkpoint("mistral")
    continued = continue_greedily(checkpoint, PROMPTS, max_new_tokens=4, max_batch=2)
    texts = [
        checkpoint.tokenizer.decode(list(text.ids[text.prompt_length :]), skip_special_tokens=True).strip()
        for text in continued
    ]
    assert generate(checkpoint, PROMPTS, max_new_tokens=4) == texts


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types_are_summed_up_in_float32_or_wider(dtype: torch.dtype) -> None:
    checkpoint = tiny_checkpoint("llama", dtype=dtype)
    text = "the same words again and again, " * 7
    values: dict[str, torch.Tensor] = {}
    with watching(checkpoint.model, [checkpoint.names.site(h_down(1))], values.__setitem__):
        run_until_seen(checkpoint.model, input_ids=torch.tensor([checkpoint.tokenizer(text)["input_ids"]]))
    own = values[h_down(1)][0]
    assert own.dtype == dtype
    found = record(checkpoint, [text] * 3, [h_down(1)], position="mean", max_batch=1)
    exact = own.double().mean(0)
    torch.testing.assert_close(found.mean(h_down(1)), exact, rtol=1e-5, atol=1e-6)
    narrow = torch.zeros_like(own[0])
    for row in own:
        narrow += row
    assert (narrow.double() / len(own) - exact).abs().max() > 1e-4  # what a sum in the narrow type would give


def test_an_overflow_in_float16_is_counted_by_block_and_kept() -> None:
    checkpoint = tiny_checkpoint("llama", dtype=torch.float16)
    checkpoint.model.model.layers[1].mlp.up_proj.weight.data[3] = 6e4
    found = record(checkpoint, PROMPTS, [h_down(b) for b in range(N_BLOCKS)])
    assert found.non_finite[h_down(0)] == 0
    assert found.non_finite[h_down(1)] > 0
    assert not torch.isfinite(found.mean(h_down(1))[3])


def test_a_nan_in_one_input_stays_in_its_group() -> None:
    checkpoint = tiny_checkpoint("gpt2")
    checkpoint.model.transformer.wte.weight.data[checkpoint.tokenizer("a")["input_ids"][0]] = float("nan")
    found = record(checkpoint, ["a", "b", "c", "d"], [h_down(0)], groups=2)
    assert not torch.isfinite(found.groups[h_down(0)][0]).any()
    assert torch.isfinite(found.groups[h_down(0)][1]).all()
    assert found.non_finite[h_down(0)] == D_MLP


@pytest.mark.parametrize("prompts", [["a"], ["a"] * 3, ["Tell me"]])
def test_single_inputs_and_single_tokens(checkpoint: Checkpoint, prompts: list[str]) -> None:
    for position in ("last", "mean", "all"):
        found = record_all(checkpoint, prompts, [h_down(1)], position=position)[h_down(1)]
        assert found.shape == (len(prompts), D_MLP)
        assert torch.isfinite(found).all()


def test_the_order_of_the_inputs_comes_back() -> None:
    checkpoint = tiny_checkpoint("llama")
    prompts = ["x" * (1 + (7 * i) % 13) + str(i) for i in range(700)]  # more than are tokenised at a time
    hook = "embed.hook_out"
    found = record_all(checkpoint, prompts, [hook], max_tokens=256)[hook]
    last = torch.tensor([checkpoint.tokenizer(prompt)["input_ids"][-1] for prompt in prompts])
    assert torch.equal(found, checkpoint.model.get_input_embeddings().weight.detach()[last])


def test_positions_are_the_tokens_they_name() -> None:
    checkpoint = tiny_checkpoint("llama")
    ids = encode(checkpoint.tokenizer, PROMPTS[:1], RESPONSES[:1], max_length=128)[0]
    seen: dict[str, torch.Tensor] = {}
    with watching(checkpoint.model, [checkpoint.names.site(h_down(1))], seen.__setitem__):
        run_until_seen(checkpoint.model, input_ids=torch.tensor([ids.ids]))
    every = seen[h_down(1)][0]
    for position, part in {
        "last": every[ids.prompt_length - 1],
        "mean": every[: ids.prompt_length].mean(0),
        "response": every[ids.prompt_length :].mean(0),
        "all": every.mean(0),
    }.items():
        found = record_all(checkpoint, PROMPTS[:1], [h_down(1)], responses=RESPONSES[:1], position=position)
        torch.testing.assert_close(found[h_down(1)][0], part)


@pytest.mark.parametrize("n_groups", [1, 2, 5, 128])
def test_group_means_give_the_mean_over_inputs(n_groups: int) -> None:
    checkpoint = tiny_checkpoint("mistral")
    recording = record(checkpoint, PROMPTS, [h_down(2)], keep=[h_down(2)], groups=n_groups)
    torch.testing.assert_close(recording.mean(h_down(2)), recording.inputs[h_down(2)].double().mean(0))
    assert recording.n_inputs == len(PROMPTS)


def test_the_forward_stops_after_the_last_wanted_block() -> None:
    checkpoint = tiny_checkpoint("llama")
    calls: list[int] = []
    handles = [
        layer.register_forward_hook(lambda *_, i=i: calls.append(i))
        for i, layer in enumerate(checkpoint.model.model.layers)
    ]
    record(checkpoint, ["Tell me"], [h_down(1)])
    assert calls == [0]  # stopped inside block 1
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("architecture", MAIN_ARCHITECTURES)
def test_the_model_comes_back_as_it_was(architecture: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    checkpoint.model.train()
    before = {name: value.clone() for name, value in checkpoint.model.state_dict().items()}
    record(checkpoint, PROMPTS, [h_down(1), h_mid(1)])
    with (
        pytest.raises(RuntimeError, match="on purpose"),
        watching(
            checkpoint.model,
            [checkpoint.names.site(h_down(0))],
            lambda *_: (_ for _ in ()).throw(RuntimeError("on purpose")),
        ),
    ):
        run_until_seen(checkpoint.model, input_ids=torch.tensor([[1, 2]]))
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in checkpoint.model.modules())
    assert all(module.training for module in checkpoint.model.modules())
    assert all(torch.equal(value, before[name]) for name, value in checkpoint.model.state_dict().items())


def test_a_recording_survives_its_file(tmp_path) -> None:
    checkpoint = tiny_checkpoint("gpt2")
    recording = record(checkpoint, PROMPTS, [h_down(0)], keep=[h_down(0)])
    loaded = Recording.load(recording.save(tmp_path / "recording.safetensors"))
    assert torch.equal(loaded.groups[h_down(0)], recording.groups[h_down(0)])
    assert torch.equal(loaded.inputs[h_down(0)], recording.inputs[h_down(0)])
    assert (loaded.position, loaded.fingerprint) == (recording.position, recording.fingerprint)


def test_non_finite_values_are_counted_and_kept() -> None:
    checkpoint = tiny_checkpoint("llama")
    checkpoint.model.model.layers[1].mlp.gate_proj.weight.data[3] = float("nan")
    recording = record(checkpoint, PROMPTS, [h_down(0), h_down(1)])
    assert recording.non_finite == {h_down(0): 0, h_down(1): len(PROMPTS)}
    assert not torch.isfinite(recording.mean(h_down(1))).all()


@pytest.mark.parametrize("architecture", ["neox"])
def test_parallel_blocks_have_no_middle_stream(architecture: str) -> None:
    checkpoint = tiny_checkpoint(architecture)
    record(checkpoint, PROMPTS, [h_down(1)])
    with pytest.raises(InputError, match="no residual stream between attention and MLP"):
        record(checkpoint, PROMPTS, [h_mid(1)])


def test_mixture_of_experts_has_no_value_matrix() -> None:
    checkpoint = tiny_checkpoint("mixtral")
    with pytest.raises(InputError, match="mixture-of-experts blocks have no single value matrix"):
        record(checkpoint, PROMPTS, [h_down(0)])


@pytest.mark.parametrize(
    ("component", "parts"), [("mlp.gate", "gate_up_proj, down_proj"), ("attn.q", "o_proj, qkv_proj")]
)
def test_packed_matrices_are_no_modules_of_their_own(component: str, parts: str) -> None:
    checkpoint = tiny_checkpoint("phi3")
    record(checkpoint, PROMPTS, [h_down(0)])  # W_V is not packed
    with pytest.raises(InputError, match=f"packed into another or absent, the parts there are {parts}"):
        record(checkpoint, PROMPTS, [f"blocks.0.{component}.hook_out"])


@pytest.mark.parametrize(
    ("prompts", "hooks", "message"),
    [
        ([], [h_down(0)], "no prompts"),
        ([" "], [h_down(0)], "prompt 0 is empty"),
        (["a" * 300], [h_down(0)], "prompt 0 has 300 tokens"),
        (["a"], [h_down(9)], "block 9 is out of range, the model has blocks 0 to 2"),
        (["a"], ["blocks.0.nothing"], "unknown hook point"),
    ],
)
def test_bad_input_is_named(prompts: list[str], hooks: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        record(tiny_checkpoint("llama"), prompts, hooks)


@pytest.mark.parametrize(
    ("position", "message"),
    [
        ("first", "position must be one of"),
        ("generated:0", "position must be one of"),
        ("generated:two", "position must be one of"),
        ("generated:2", "needs continuations"),
        ("response", "needs responses"),
    ],
)
def test_a_position_without_its_text_is_refused(position: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        record(tiny_checkpoint("llama"), ["a"], [h_down(0)], position=position)


def test_truncation_is_asked_for_and_keeps_the_right_end_and_the_bos() -> None:
    checkpoint = tiny_checkpoint("llama", bos=True)
    long = "x" * 300 + "How do I do it?"
    (sequence,) = encode(checkpoint.tokenizer, [long], max_length=128, truncate=True)
    assert len(sequence.ids) == 128
    assert sequence.ids[0] == checkpoint.tokenizer.bos_token_id
    assert checkpoint.tokenizer.decode(list(sequence.ids)).endswith("How do I do it?")
