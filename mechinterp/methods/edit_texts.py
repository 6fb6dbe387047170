"""The two texts of an edit: the instance with its safe response, and the general-knowledge pair of the constraint.

[X; S] = X + " " + S, with X the adversarial prompt (or the knowledge question) and S the suffix prompt; a response
follows after one more space. The released code tokenises otherwise, see `DinmSettings.constraint`.
"""

from __future__ import annotations

from typing import Protocol

from transformers import PreTrainedTokenizerBase

from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.tokens import encode, keep_right
from mechinterp.models.upward import Scored


class TextSettings(Protocol):
    """What of an edit's settings its texts depend on."""

    @property
    def suffix(self) -> str | None:
        """S, None for none."""

    @property
    def released(self) -> bool:
        """Whether to tokenise as the released code."""

    @property
    def asked_at(self) -> str:
        """`response`, or `prompt_last` for a loss on the prompt alone."""

    @property
    def use_constraint(self) -> bool:
        """Whether the general-knowledge pair is read at all."""

    @property
    def max_input_tokens(self) -> int:
        """Longer prompts lose their left end, but not as the released code."""

    @property
    def max_output_tokens(self) -> int:
        """Longer responses lose their right end, but not as the released code."""


def edit_texts(checkpoint: Checkpoint, instance: SafeEditInstance, settings: TextSettings) -> list[Scored]:
    """All that an instance's edit reads: its text, then the general-knowledge pair where there is a constraint.

    Raises:
        InputError: for a text that does not fit, or has nothing to score.
    """
    texts = [edit_text(checkpoint, instance, settings)]
    return [*texts, constraint_text(checkpoint, instance, settings)] if settings.use_constraint else texts


def edit_text(checkpoint: Checkpoint, instance: SafeEditInstance, settings: TextSettings) -> Scored:
    """[X; S] with Y_safe after it; scored are the tokens of Y_safe.

    With `asked_at="prompt_last"` the prompt alone, every token of Y_safe being asked of its last position.

    Raises:
        InputError: if the text does not fit into the context, or nothing is left to score.
    """
    prompt = _with_suffix(instance.adversarial_prompt, settings.suffix)
    return _scored(
        checkpoint,
        f"instance {instance.id}",
        prompt,
        instance.safe_generation,
        settings,
        spaces=2,
        at=settings.asked_at,
    )


def constraint_text(checkpoint: Checkpoint, instance: SafeEditInstance, settings: TextSettings) -> Scored:
    """The general-knowledge pair with S in its prompt; scored are the tokens of the answer.

    Raises:
        InputError: if the text does not fit into the context, or the answer is empty.
    """
    pair = instance.knowledge_constraint
    what = f"knowledge constraint of instance {instance.id}"
    text = _scored(checkpoint, what, _with_suffix(pair.prompt, settings.suffix), pair.answer, settings, spaces=1)
    if not settings.released:
        return text
    # The released code tokenises the answer alone and takes that many logits from the end: the last one predicts what
    # follows the answer, and a BOS counts among them.
    width = min(len(_ids(checkpoint.tokenizer, pair.answer)), len(text.ids))
    return Scored(text.ids, range(len(text.ids) - width, len(text.ids)))


def _with_suffix(prompt: str, suffix: str | None) -> str:
    return f"{prompt} {suffix}" if suffix else prompt


def _scored(
    checkpoint: Checkpoint,
    what: str,
    prompt: str,
    response: str,
    settings: TextSettings,
    *,
    spaces: int,
    at: str = "response",
) -> Scored:
    """Tokenise a prompt with a response after it and find the positions that predict the response."""
    if not response.strip():
        raise InputError(f"{what}: the response to learn is empty")
    tokenizer = checkpoint.tokenizer
    if settings.released:
        # One text with `spaces` spaces, the labels tokenised apart with special tokens: the last predictions are scored
        # against them, whether or not they are the tokens at the end of the text.
        ids = _ids(tokenizer, f"{prompt}{' ' * spaces}{response}")
        labels = _ids(tokenizer, f" {response}")
    else:
        (text,) = encode(tokenizer, [prompt], [response], max_length=2**31)
        labels = list(text.ids[text.prompt_length :][: settings.max_output_tokens])
        ids = [*keep_right(text.ids[: text.prompt_length], settings.max_input_tokens, tokenizer.bos_token_id), *labels]
    context = checkpoint.names.context_length
    if len(ids) > context:
        advice = "lower max_input_tokens or max_output_tokens"
        if settings.released:
            advice = 'the released code cuts nothing: use constraint "published", which cuts, or a shorter instance'
        raise InputError(f"{what}: {len(ids)} tokens do not fit into the context of {context}; {advice}")
    if not labels or len(labels) >= len(ids):
        raise InputError(f"{what}: no prompt or no response left to score")
    if at == "prompt_last":
        prompt_ids = ids[: len(ids) - len(labels)]
        return Scored(prompt_ids, [len(prompt_ids) - 1] * len(labels), labels)
    kept = list(range(len(labels)))
    if settings.released:  # its masking of padding also drops a label that happens to be the padding token
        kept = [i for i in kept if labels[i] != tokenizer.pad_token_id]
    first = len(ids) - 1 - len(labels)
    return Scored(ids, [first + i for i in kept], [labels[i] for i in kept])


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, verbose=False)["input_ids"])
