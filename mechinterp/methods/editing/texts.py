"""The two texts of an edit: the instance with its safe response, and the general-knowledge pair of the constraint.

[X; S] = X + " " + S, with X the adversarial prompt (or the knowledge question) and S the suffix prompt; a response
follows after one more space. In a chat format [X; S] is the user's message, and the template says what follows it.
The released code tokenises otherwise, see `DinmSettings.constraint`, and only plain text.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from mechinterp.data.counting import many
from mechinterp.data.pairs import AnyPair, knowledge_of
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.feeding import ANY_LENGTH, as_fed
from mechinterp.models.passes.upper_blocks import Scored
from mechinterp.models.text.cutting import keep_right
from mechinterp.models.text.special_tokens import Around, SpelledOut
from mechinterp.models.text.tokens import encode, plain_text, wrapped

logger = logging.getLogger(__name__)


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


def edit_texts(checkpoint: Checkpoint, instance: AnyPair, settings: TextSettings) -> list[Scored]:
    """All that an instance's edit reads: its text, then the general-knowledge pair where there is a constraint.

    Raises:
        InputError: for a text that does not fit, or has nothing to score.
    """
    texts = [edit_text(checkpoint, instance, settings)]
    return [*texts, constraint_text(checkpoint, instance, settings)] if settings.use_constraint else texts


def edit_text(checkpoint: Checkpoint, instance: AnyPair, settings: TextSettings) -> Scored:
    """[X; S] with Y_safe after it; scored are the tokens of Y_safe.

    With `asked_at="prompt_last"` the prompt alone, every token of Y_safe being asked of its last position.

    Raises:
        InputError: if the text does not fit into the context, or nothing is left to score.
    """
    prompt = wrapped(instance.prompt, suffix=settings.suffix)
    return _scored(
        checkpoint,
        f"instance {instance.id}",
        prompt,
        instance.safe,
        settings,
        spaces=2,
        at=settings.asked_at,
    )


def constraint_text(checkpoint: Checkpoint, instance: AnyPair, settings: TextSettings) -> Scored:
    """The general-knowledge pair with S in its prompt; scored are the tokens of the answer.

    Raises:
        InputError: if the text does not fit into the context, or the answer is empty.
    """
    check_constraints([instance])
    pair = knowledge_of(instance)
    assert pair is not None
    what = f"knowledge constraint of instance {instance.id}"
    text = _scored(checkpoint, what, wrapped(pair.prompt, suffix=settings.suffix), pair.answer, settings, spaces=1)
    if not settings.released:
        return text
    # The released code tokenises the answer alone and takes that many logits from the end: the last one predicts what
    # follows the answer, and a BOS counts among them.
    width = min(len(_ids(checkpoint.tokenizer, pair.answer)), len(text.ids))
    return Scored(text.ids, range(len(text.ids) - width, len(text.ids)))


def check_constraints(instances: Sequence[AnyPair]) -> None:
    """Raise `InputError` unless all instances have the general-knowledge pair of the constraint; needs no model."""
    if without := [instance.id for instance in instances if knowledge_of(instance) is None]:
        raise InputError(
            f"pair {without[0]} has no general-knowledge question for DINM's constraint; edit `without_constraint` "
            "(the setting `use_constraint`: false), or give SafeEdit instances"
        )


def say_of_texts(checkpoint: Checkpoint, instances: Sequence[AnyPair], settings: TextSettings) -> None:
    """Warn, once for all instances, of what may not be meant: special tokens in their texts, and prompts that are cut.

    The texts of one edit are tokenised again and again, and nothing is said there.
    """
    tokenizer, suffix = checkpoint.tokenizer, settings.suffix
    read = [(f"instance {i.id}", wrapped(i.prompt, suffix=suffix), i.safe) for i in instances]
    if settings.use_constraint:
        check_constraints(instances)
        pairs = [(i.id, pair) for i in instances if (pair := knowledge_of(i)) is not None]
        read += [
            (f"knowledge constraint of instance {n}", wrapped(p.prompt, suffix=suffix), p.answer) for n, p in pairs
        ]
    read = [(name, prompt, response) for name, prompt, response in read if prompt.strip() and response.strip()]
    if not read:
        return
    names, prompts, responses = map(list, zip(*read, strict=True))
    if settings.released:  # which tokenises otherwise, and cuts nothing
        spelled = SpelledOut(tokenizer, Around.of(tokenizer))
        for name, text in zip(names * 2, prompts + responses, strict=True):
            spelled.look(name, text, _ids(tokenizer, text))
        spelled.warn()
        return
    texts = as_fed(checkpoint, prompts, responses, max_length=ANY_LENGTH, called=names)
    if cut := [name for name, text in zip(names, texts, strict=True) if text.prompt_length > settings.max_input_tokens]:
        logger.warning(
            "%d of %d prompts are cut on the left to max_input_tokens, %d, the first is that of %s",
            len(cut),
            len(names),
            settings.max_input_tokens,
            cut[0],
        )


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
    tokenizer, chat = checkpoint.tokenizer, checkpoint.chat
    if settings.released and chat is not None:
        raise InputError(
            f'{what}: the released code\'s tokenisation has no chat format; use constraint "published", or plain text '
            "(`chat=none`)"
        )
    if settings.released:
        # One text with `spaces` spaces, the labels tokenised apart with special tokens: the last predictions are scored
        # against them, whether or not they are the tokens at the end of the text.
        ids = _ids(tokenizer, f"{plain_text(prompt, what)}{' ' * spaces}{response}")
        labels = _ids(tokenizer, f" {response}")
    else:
        (text,) = encode(tokenizer, [prompt], [response], chat=chat, max_length=2**31, quiet=True)  # see `say_of_texts`
        labels = list(text.ids[text.prompt_length :][: settings.max_output_tokens])
        head, content = text.ids[: text.prompt_length], text.content
        left = Around.of(tokenizer).in_front(head) if content is None else content.start
        if content is not None and len(head) - len(content) >= settings.max_input_tokens < len(head):
            raise InputError(
                f"{what}: {many(len(head) - len(content), 'token')} of the chat format leave no room for the prompt in "
                f"max_input_tokens, {settings.max_input_tokens}; raise it"
            )
        ids = [*keep_right(head, settings.max_input_tokens, left), *labels]
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
