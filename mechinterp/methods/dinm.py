"""DINM: detoxifying with intraoperative neural monitoring (Wang et al. 2024, Eq. 8-11).

Only W_V of one block is trained, on one instance, T steps of Adam, on

    L = c_edit L_e + L_c
    L_e = mean over tokens of Y_safe of -log P(token | [X; S], earlier tokens)
    L_c = mean over the answer tokens of a general-knowledge pair of KL between the next-token distributions of the
          edited and the unedited model, the pair's prompt with S appended

with X the adversarial prompt, S a suffix prompt, [X; S] = X + " " + S.

The released code is not the published method, so both exist (`DinmSettings.constraint`); each deviation is a switch of
`DinmSettings`, turned on together by `constraint="released"`.

Everything upstream of W_V is constant while it is trained. So the instance and the constraint pass through the lower
blocks once; each step runs the model's own forward from W_V upward, and for the last block only at the positions whose
predictions are scored. The losses are those of the full computation.

A low loss on one instance does not show that anything was erased: see `measures.decomposition`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from mechinterp.data.safeedit import SUFFIX, SafeEditInstance
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.deltas import EditStep, WeightDelta
from mechinterp.models.middle_stream import adds_up
from mechinterp.models.tokens import encode, keep_right
from mechinterp.models.watching import evaluating, run_until_seen, watching


class DinmSettings(BaseModel):
    """Settings of an edit; the defaults are the published ones for Mistral-7B-v0.1, learning rate apart."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    constraint: Literal["published", "released"] = Field(
        "published",
        description="`published`: L_c has a gradient. `released`: it has none and only enters the stop test; also the "
        "released code's tokenisation (two spaces before Y_safe, special tokens before it and before the answer, L_c "
        "over the last positions of the pair) and, where W_V's module has a bias, the bias is trained too",
    )
    kl_direction: Literal["edited||base", "base||edited"] | None = Field(
        None, description="order in L_c; by default edited||base as Eq. 9 for `published`, base||edited for `released`"
    )
    learning_rate: float = Field(5e-4, gt=0, description="5e-4 for LLaMA2-7B-Chat, 1e-5 for Mistral-7B-v0.1")
    steps: int = Field(10, ge=0)
    c_edit: float = Field(0.1, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    suffix: str | None = Field(SUFFIX, description="S; None for the ablation wo/SyPrompt")
    use_constraint: bool = Field(True, description="False for the ablation wo/Constraint")
    stop_below: float | None = Field(None, description="stop when L falls below; 1e-4 for `released` if not given")
    max_input_tokens: int = Field(1000, gt=0, description="longer prompts are cut from the left")
    max_output_tokens: int = Field(600, gt=0, description="longer safe responses and answers are cut at the end")

    @property
    def released(self) -> bool:
        """Whether the released code's deviations are on."""
        return self.constraint == "released"


@dataclass(frozen=True)
class _Scored:
    """A text with the positions whose predictions are scored."""

    ids: Int[Tensor, "1 pos"]
    positions: Int[Tensor, " scored"]
    labels: Int[Tensor, " scored"]


def edit(
    checkpoint: Checkpoint,
    instance: SafeEditInstance,
    *,
    block: int,
    settings: DinmSettings | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> WeightDelta:
    """Compute the DINM edit of one instance; the model is left as it was.

    Args:
        checkpoint: the model to edit.
        instance: gives X, Y_safe and the general-knowledge pair.
        block: the toxic layer, from 0.
        settings: see `DinmSettings`.
        progress: called with (steps done, steps in all).

    Returns:
        The change of W_V (and of its bias where `released` trains it), with the loss of every step, measured before the
        step as the released code prints it.

    Raises:
        InputError: for a block out of range, a text that does not fit, or a loss that is not finite (with its step).
    """
    settings = settings or DinmSettings()
    checkpoint.names.check_block(block)
    target = _edit_text(checkpoint, instance, settings)
    answer = _constraint_text(checkpoint, instance, settings)
    module = checkpoint.module(f"blocks.{block}.mlp.out")
    path = checkpoint.names.module(f"blocks.{block}.mlp.out")
    frozen = {name: value.detach() for name, value in module.named_parameters()}
    chosen = [name for name in frozen if name == "weight" or settings.released]
    # At least float32: a step of 1e-5 is lost in the rounding of a bfloat16 weight.
    trained = {name: frozen[name].to(_wide(frozen[name].dtype), copy=True).requires_grad_() for name in chosen}
    optimiser = torch.optim.Adam(trained.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    direction = settings.kl_direction or ("base||edited" if settings.released else "edited||base")
    stop_below = settings.stop_below if settings.stop_below is not None else (1e-4 if settings.released else None)
    log: list[EditStep] = []
    # grad mode is set here, whatever the caller's: an edit inside torch.no_grad() is still an edit
    with evaluating(checkpoint.model), _without_gradients(checkpoint.model), torch.enable_grad(), ExitStack() as stack:
        edited_logits = _Above(checkpoint, block, target)
        constraint_logits = _Above(checkpoint, block, answer)
        base = constraint_logits(frozen).detach().log_softmax(-1) if settings.use_constraint else None
        stack.callback(edited_logits.forget)
        stack.callback(constraint_logits.forget)
        for step in range(settings.steps):
            optimiser.zero_grad()
            parameters = {**frozen, **{name: value.to(frozen[name].dtype) for name, value in trained.items()}}
            loss_edit = functional.cross_entropy(edited_logits(parameters).float(), target.labels)
            loss_constraint = torch.zeros(())
            if base is not None:
                with torch.set_grad_enabled(not settings.released):
                    loss_constraint = _divergence(constraint_logits(parameters).log_softmax(-1), base, direction)
            loss = settings.c_edit * loss_edit + loss_constraint.to(loss_edit.device)
            log.append(EditStep(loss.item(), loss_edit.item(), loss_constraint.item()))
            if not math.isfinite(log[-1].loss):
                raise InputError(
                    f"instance {instance.id}: the loss became {log[-1].loss} at step {step}; nothing was applied, "
                    "lower the learning rate or use float32"
                )
            if stop_below is not None and log[-1].loss < stop_below:
                break
            loss.backward()
            optimiser.step()
            if progress is not None:
                progress(step + 1, settings.steps)
    return WeightDelta(
        tensors={f"{path}.{name}": (value.detach() - frozen[name]).cpu() for name, value in trained.items()},
        block=block,
        instance=instance.id,
        settings=settings.model_dump(),
        log=tuple(log),
        fingerprint=checkpoint.fingerprint,
    )


def _wide(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype == torch.float64 else torch.float32


def _divergence(edited: Tensor, base: Tensor, direction: str) -> Tensor:
    """Mean over positions of KL between two sets of log-probabilities, in float32."""
    edited, base = edited.float(), base.float()
    first, second = (edited, base) if direction == "edited||base" else (base, edited)
    return functional.kl_div(second, first, log_target=True, reduction="none").sum(-1).mean()


def _edit_text(checkpoint: Checkpoint, instance: SafeEditInstance, settings: DinmSettings) -> _Scored:
    """[X; S] with Y_safe after it; scored are the tokens of Y_safe."""
    prompt = _with_suffix(instance.adversarial_prompt, settings.suffix)
    return _scored(checkpoint, f"instance {instance.id}", prompt, instance.safe_generation, settings, spaces=2)


def _constraint_text(checkpoint: Checkpoint, instance: SafeEditInstance, settings: DinmSettings) -> _Scored:
    """The general-knowledge pair with S in its prompt; scored are the tokens of the answer."""
    pair = instance.knowledge_constraint
    what = f"knowledge constraint of instance {instance.id}"
    text = _scored(checkpoint, what, _with_suffix(pair.prompt, settings.suffix), pair.answer, settings, spaces=1)
    if not settings.released:
        return text
    # The released code tokenises the answer alone and takes that many logits from the end: the last one predicts what
    # follows the answer, and a BOS counts among them.
    width = min(len(checkpoint.tokenizer(pair.answer, verbose=False)["input_ids"]), text.ids.shape[1])
    return _Scored(text.ids, torch.arange(text.ids.shape[1] - width, text.ids.shape[1]), text.labels[:0])


def _with_suffix(prompt: str, suffix: str | None) -> str:
    return f"{prompt} {suffix}" if suffix else prompt


def _scored(
    checkpoint: Checkpoint, what: str, prompt: str, response: str, settings: DinmSettings, *, spaces: int
) -> _Scored:
    """Tokenise a prompt with a response after it and find the positions that predict the response."""
    tokenizer = checkpoint.tokenizer
    if settings.released:
        # One text with `spaces` spaces, the labels tokenised apart with special tokens: the last predictions are scored
        # against them, whether or not they are the tokens at the end of the text.
        ids = tokenizer(f"{prompt}{' ' * spaces}{response}", verbose=False)["input_ids"]
        labels = tokenizer(f" {response}", verbose=False)["input_ids"]
    else:
        (text,) = encode(tokenizer, [prompt], [response], max_length=2**31)
        labels = list(text.ids[text.prompt_length :][: settings.max_output_tokens])
        ids = [*keep_right(text.ids[: text.prompt_length], settings.max_input_tokens, tokenizer.bos_token_id), *labels]
    context = checkpoint.names.context_length
    if len(ids) > context:
        raise InputError(f"{what}: {len(ids)} tokens do not fit into the context of {context}")
    if not labels or len(labels) >= len(ids):
        raise InputError(f"{what}: no prompt or no response left to score")
    end = len(ids) - 1
    kept = list(range(len(labels)))
    if settings.released:  # its masking of padding also drops a label that happens to be the padding token
        kept = [i for i in kept if labels[i] != tokenizer.pad_token_id]
    positions = torch.tensor([end - len(labels) + i for i in kept])
    return _Scored(
        torch.tensor([ids], device=checkpoint.device),
        positions,
        torch.tensor([labels[i] for i in kept], device=checkpoint.device),
    )


@contextmanager
def _without_gradients(model: nn.Module) -> Iterator[None]:
    """Switch gradients off for the parameters, then give each its own setting back."""
    wanting = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in wanting:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in wanting:
            parameter.requires_grad_(True)


class _Above:
    """The model from W_V of one block upward, on one text, as a function of W_V's parameters.

    Calling it runs the model's own forward with the lower blocks passing their input through and the block itself
    returning h_mid + the write of the given parameters on the h_down computed once. So masks, position embeddings, the
    final norm, the unembedding and what else an architecture does to logits stay the model's own.
    """

    def __init__(self, checkpoint: Checkpoint, block: int, text: _Scored) -> None:
        self.model = checkpoint.model
        names = checkpoint.names
        self.blocks = [self.model.get_submodule(names.module(f"blocks.{b}")) for b in range(block + 1)]
        self.value_module = checkpoint.module(f"blocks.{block}.mlp.out")
        post = f"blocks.{block}.ln2_post"
        self.post_norm = checkpoint.module(post) if names.has(post) else nn.Identity()
        self.last = block == names.n_blocks - 1
        h_down, h_mid, h_out = (
            names.site(f"blocks.{block}.{point}") for point in ("mlp.hook_post", "hook_resid_mid", "hook_resid_post")
        )
        seen: dict[str, Tensor] = {}
        with watching(self.model, [h_down, h_mid, h_out], seen.__setitem__):
            run_until_seen(self.model, input_ids=text.ids)
        with torch.no_grad():
            down = seen[h_down.name].reshape(*text.ids.shape, -1)
            middle = seen[h_mid.name]
            write = self.post_norm(self.value_module(down))
            if not adds_up(middle, write, seen[h_out.name]):
                raise InputError(
                    f"{names.source}: block {block} of {type(self.model).__name__} is not h_mid + MLP write "
                    "(parallel attention and MLP, or a norm after the addition), which the editor relies on"
                )
        # Above the last block no position looks at another: only the scored ones are run.
        chosen = text.positions if self.last else torch.arange(text.ids.shape[1])
        self.down, self.middle = down[:, chosen], middle[:, chosen]
        self.ids = text.ids[:, chosen]
        self.scored = torch.arange(len(chosen)) if self.last else text.positions

    def __call__(self, parameters: dict[str, Tensor]) -> Float[Tensor, "scored vocabulary"]:
        """Logits at the scored positions."""
        write = self.post_norm(functional_call(self.value_module, parameters, (self.down,)))
        with _replaced_blocks(self.blocks, self.middle + write):
            output = self.model(input_ids=self.ids, use_cache=False, logits_to_keep=self.scored.to(self.ids.device))
        return output.logits[0]

    def forget(self) -> None:
        """Free the activations."""
        del self.down, self.middle


@contextmanager
def _replaced_blocks(blocks: Sequence[nn.Module], hidden: Tensor) -> Iterator[None]:
    """Let the lower blocks pass their input through and the last of `blocks` return `hidden`."""

    def pass_through(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return hidden_states

    # accelerate and compilers put a forward of their own on the instance; it comes back afterwards
    own = [module.__dict__.get("forward") for module in blocks]
    try:
        for module in blocks[:-1]:
            module.forward = pass_through
        blocks[-1].forward = lambda *args, **kwargs: hidden
        yield
    finally:
        for module, forward in zip(blocks, own, strict=True):
            module.__dict__.pop("forward", None)
            if forward is not None:
                module.forward = forward
