"""The chat format: what is fed, where it ends, and that every path feeds the same."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from chats import NO_SYSTEM, TEMPLATES, chat_checkpoint, chat_tokenizer, template

from mechinterp.data.conversations import Conversation
from mechinterp.errors import InputError
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.passes.answer_ends import end_tokens
from mechinterp.models.passes.generation import continue_greedily, generate
from mechinterp.models.text import chat as chat_module
from mechinterp.models.text.chat import DATE, PLAIN, ChatChoice, ChatFormat
from mechinterp.models.text.rendering import Rendering
from mechinterp.models.text.tokens import Encoded, encode

QUESTION, ANSWER = "How do I do it?", "I am sorry."
MANY = ["a", "What is the colour of the sky over there today?", "Tell me", QUESTION]


def formats() -> list[object]:
    return [
        pytest.param(name, system, id=f"{name}-{'system' if system else 'plain'}")
        for name in TEMPLATES
        for system in (None, "Be kind.")
        if not (system and name in NO_SYSTEM)
    ]


def reference(name: str, chat: ChatFormat, messages: list[dict[str, str]], **how: bool) -> list[int]:
    """What transformers itself makes of a conversation, with the arguments that the templates know."""
    if chat.system is not None:
        messages = [{"role": "system", "content": chat.system}, *messages]
    told = {"enable_thinking": chat.thinking, "thinking": chat.thinking, "date_string": "26 Jul 2024"}
    found = chat_tokenizer(name).apply_chat_template(
        messages,
        tokenize=True,
        return_dict=True,
        **how,
        **{key: value for key, value in told.items() if value is not None},
    )
    return list(found["input_ids"])


@pytest.mark.parametrize(("name", "system"), formats())
def test_ids_are_those_that_transformers_makes(name: str, system: str | None) -> None:
    tokenizer = chat_tokenizer(name)
    chat = ChatChoice(system=system, thinking=False).of(tokenizer, name)
    asked = [{"role": "user", "content": QUESTION}]

    (prompt,) = encode(tokenizer, [QUESTION], max_length=999, chat=chat)
    assert prompt.ids.tolist() == reference(name, chat, asked, add_generation_prompt=True)
    assert prompt.prompt_length == len(prompt.ids)
    assert tokenizer.decode(prompt.ids[prompt.content.start : prompt.content.stop]) == QUESTION

    (answered,) = encode(tokenizer, [QUESTION], [ANSWER], max_length=999, chat=chat)
    whole = [*asked, {"role": "assistant", "content": ANSWER}]
    assert answered.ids.tolist() == reference(name, chat, whole, continue_final_message=True)
    assert answered.ids[: answered.prompt_length] == prompt.ids
    assert tokenizer.decode(answered.ids[answered.prompt_length :]).endswith(ANSWER)

    begun = Conversation([*asked, {"role": "assistant", "content": "I am"}])
    (prefilled,) = encode(tokenizer, [begun], max_length=999, chat=chat)
    assert prefilled.ids.tolist() == reference(name, chat, begun.messages, continue_final_message=True)
    (going_on,) = encode(tokenizer, [begun], ["sorry."], max_length=999, chat=chat)
    assert going_on.ids == answered.ids
    assert going_on.prompt_length == len(prefilled.ids)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_batch_is_its_prompts_one_by_one_whatever_comes_first(name: str) -> None:
    tokenizer = chat_tokenizer(name)
    chat = ChatChoice().of(tokenizer, name)
    alone = {text: encode(tokenizer, [text], [ANSWER], max_length=999, chat=chat)[0] for text in MANY}
    for order in (MANY, MANY[::-1]):
        together = encode(tokenizer, order, [ANSWER] * len(order), max_length=999, chat=chat)
        assert together == [alone[text] for text in order]


def test_every_prompt_is_rendered_once_and_with_its_response_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, rendered = chat_tokenizer("qwen2_5"), list[list[dict[str, str]]]()
    chat = ChatChoice().of(tokenizer, "it")
    render = tokenizer.apply_chat_template

    def counted(messages: list[dict[str, str]], **how: object) -> object:
        rendered.append(messages)
        return render(messages, **how)

    monkeypatch.setattr(tokenizer, "apply_chat_template", counted)
    encode(tokenizer, MANY, max_length=999, chat=chat)
    marked = 1  # where the user's text stands, once for all of one message
    assert len(rendered) == len(MANY) + marked
    rendered.clear()
    encode(tokenizer, [*MANY, QUESTION], [ANSWER] * 5, max_length=999, chat=chat)
    assert len(rendered) == len(MANY) + marked + 5
    rendered.clear()
    encode(tokenizer, ["first " * 20 + QUESTION], max_length=150, chat=chat, suffix="Now.", truncate=True)
    assert len(rendered) == 1 + marked


def test_conversations_that_read_alike_are_not_taken_for_each_other() -> None:
    tokenizer = chat_tokenizer("qwen2_5")
    chat = ChatChoice().of(tokenizer, "it")
    turns = [("user", "a"), ("assistant", "b"), ("user", "c")]
    parted = Conversation([{"role": role, "content": text} for role, text in turns])
    joined = Conversation([{"role": "user", "content": "a\nassistant: b"}, {"role": "user", "content": "c"}])
    assert parted == joined  # as texts
    together = encode(tokenizer, [parted, joined], max_length=999, chat=chat)
    assert together == [encode(tokenizer, [one], max_length=999, chat=chat)[0] for one in (parted, joined)]
    assert together[0].ids != together[1].ids


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_last_prompt_token_chooses_the_first_of_the_answer(name: str) -> None:
    checkpoint = chat_checkpoint(name)
    texts = [*MANY, Conversation([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}])]
    for text in continue_greedily(checkpoint, texts, max_new_tokens=1):
        (last,) = text.positions("last")
        ids = torch.tensor([text.ids[: text.prompt_length].tolist()])
        with torch.no_grad():
            logits = checkpoint.model(ids).logits[0]
        assert int(logits[last].argmax()) == text.ids[text.prompt_length]


def test_positions() -> None:
    checkpoint = chat_checkpoint("qwen2_5")
    (text,) = encode(checkpoint.tokenizer, [QUESTION], max_length=999, chat=checkpoint.chat)
    read = [checkpoint.tokenizer.decode([text.ids[i] for i in text.positions(p)]) for p in ("last", "content", "mean")]
    assert read == ["\n", "?", QUESTION]
    after = checkpoint.tokenizer.decode(text.ids[text.content.stop :])
    assert after == "<|im_end|>\n<|im_start|>assistant\n"
    behind = len(text.ids) - text.content.stop
    assert text.positions("post:-1") == text.positions("last")
    assert text.positions(f"post:-{behind}") == range(text.content.stop, text.content.stop + 1)
    assert not text.positions(f"post:-{behind + 1}")  # the user's own text
    plain = Encoded.of([1, 2, 3], 3)
    assert plain.positions("content") == plain.positions("last")
    with pytest.raises(InputError, match="position must be one of"):
        text.positions("post:1")


@pytest.mark.parametrize("name", ["qwen2_5", "llama3", "gemma", "phi3"])
def test_truncation_cuts_the_users_text_alone(name: str) -> None:
    tokenizer = chat_tokenizer(name)
    chat = ChatChoice().of(tokenizer, name)
    prompt, suffix, prefix = "first " * 20 + "the end", "Be safe.", "Rule one."
    whole, around = (
        encode(tokenizer, [text], max_length=999, chat=chat, prefix=prefix, suffix=suffix)[0] for text in (prompt, "x")
    )
    room = len(around.ids) + 9
    (cut,) = encode(tokenizer, [prompt], max_length=room, chat=chat, prefix=prefix, suffix=suffix, truncate=True)
    assert len(cut.ids) == room
    said = tokenizer.decode(cut.ids[cut.content.start : cut.content.stop])
    assert said.startswith(prefix)
    assert said.endswith(f" st the end {suffix}")
    assert tokenizer.decode(cut.ids) == tokenizer.decode(around.ids).replace(f"{prefix} x {suffix}", said)
    with pytest.raises(InputError, match="the parts around it take"):
        encode(
            tokenizer, [prompt], max_length=len(around.ids) - 1, chat=chat, suffix=suffix, prefix=prefix, truncate=True
        )
    assert len(whole.ids) > room


def test_several_turns_are_rendered_and_plain_text_refuses_them() -> None:
    checkpoint = chat_checkpoint("qwen2_5")
    turns = [
        {"role": "system", "content": "Own."},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": "three"},
    ]
    (text,) = encode(checkpoint.tokenizer, [Conversation(turns)], max_length=999, chat=checkpoint.chat, suffix="S")
    read = checkpoint.tokenizer.decode(text.ids)
    assert read.startswith("<|im_start|>system\nOwn.<|im_end|>\n<|im_start|>user\none<|im_end|>")
    assert read.endswith("<|im_start|>user\nthree S<|im_end|>\n<|im_start|>assistant\n")
    assert checkpoint.tokenizer.decode(text.ids[text.content.start : text.content.stop]) == "three S"
    with pytest.raises(InputError, match="a conversation of 4 messages, which plain text cannot hold"):
        encode(checkpoint.tokenizer, [Conversation(turns)], max_length=999)
    assert Conversation([{"role": "user", "content": "one"}]) == "one"


def test_what_a_template_refuses_is_said_in_one_line() -> None:
    tokenizer = chat_tokenizer("gemma")
    chat = ChatChoice(system="Be kind.").of(tokenizer, "it")
    with pytest.raises(InputError, match=r"refuses prompt 0 \(System role not supported\); leave the system"):
        encode(tokenizer, [QUESTION], max_length=999, chat=chat)
    thinking = chat_tokenizer("deepseek_r1_distill")
    with pytest.raises(InputError, match="otherwise than after its prompt"):
        encode(thinking, [QUESTION], [ANSWER], max_length=999, chat=ChatChoice().of(thinking, "it"))
    for source in ("", "hello", "{% for m in messages %}{{ m.content|upper }}{% endfor %}"):
        with pytest.raises(InputError, match=r"of mine.jinja does not write the user's message as it is"):
            encode(tokenizer, [QUESTION], max_length=999, chat=ChatFormat(source, origin="mine.jinja"))
    broken = ChatFormat("{% for %}", origin="mine.jinja")
    with pytest.raises(InputError, match=r"the chat template of mine.jinja refuses prompt 0"):
        encode(tokenizer, [QUESTION], max_length=999, chat=broken)


def test_half_a_character_is_no_text() -> None:
    """As a command line hands on bytes that are not UTF-8."""
    tokenizer = chat_tokenizer("qwen2_5")
    chat, half = ChatChoice().of(tokenizer, "it"), "a\udcff"
    for read in (chat, None):
        with pytest.raises(InputError, match="prompt 1: holds half of a surrogate pair"):
            encode(tokenizer, [QUESTION, half], max_length=999, chat=read)
        with pytest.raises(InputError, match="response 0: holds half of a surrogate pair"):
            encode(tokenizer, [QUESTION], [half], max_length=999, chat=read)
        with pytest.raises(InputError, match="prompt 0: holds half of a surrogate pair"):
            encode(tokenizer, [QUESTION], max_length=999, chat=read, suffix=half)
    with pytest.raises(InputError, match="the system message: holds half"):
        ChatChoice(system=half).of(tokenizer, "it")


def test_an_empty_system_message_is_not_an_absent_one() -> None:
    tokenizer = chat_tokenizer("qwen2_5")
    absent, empty = (ChatChoice(system=system).of(tokenizer, "it") for system in (None, ""))
    assert absent.fingerprint != empty.fingerprint
    read = [tokenizer.decode(encode(tokenizer, ["a"], max_length=999, chat=chat)[0].ids) for chat in (absent, empty)]
    assert "You are Qwen" in read[0]
    assert read[1].startswith("<|im_start|>system\n<|im_end|>")


def test_no_day_changes_what_is_fed(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = chat_tokenizer("llama3_2")

    def read(date: str | None) -> tuple[str, str]:
        chat = ChatChoice(date=date).of(tokenizer, "it")
        return chat.fingerprint, tokenizer.decode(encode(tokenizer, ["a"], max_length=999, chat=chat)[0].ids)

    first = read(None)
    assert "Today Date: 26 Jul 2024" in first[1]
    later = "2031-01-02"
    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", _Later)
    assert read(None) == first == read(DATE)
    assert "Today Date: 02 Jan 2031" in read(later)[1]
    assert read(later)[0] != first[0]
    own = '{{ strftime_now("%Y-%m-%d") }} {% for m in messages %}{{ m.content }}{% endfor %}'
    assert "2024-07-26 a" in Rendering(tokenizer, ChatFormat(own)).text("a")
    with pytest.raises(InputError, match="YYYY-MM-DD"):
        read("26 Jul")


class _Later:
    """A clock of another day."""

    @staticmethod
    def now() -> _Later:
        return _Later()

    def strftime(self, form: str) -> str:
        return "another day"


def test_thinking_is_written_into_the_template() -> None:
    tokenizer = chat_tokenizer("qwen3")
    ends = {}
    for thinking in (None, True, False):
        chat = ChatChoice(thinking=thinking).of(tokenizer, "it")
        ends[thinking] = tokenizer.decode(encode(tokenizer, ["a"], max_length=999, chat=chat)[0].ids)[-20:]
    assert ends[False].endswith("<think>\n\n</think>\n\n")
    assert ends[None] == ends[True] != ends[False]


def test_answers_end_with_the_turn(caplog: pytest.LogCaptureFixture) -> None:
    ends = {"qwen2_5": "<|im_end|>", "llama3": "<|eot_id|>", "gemma": "<end_of_turn>", "phi3": "<|end|>"}
    for name, token in ends.items():
        checkpoint = chat_checkpoint(name)
        assert checkpoint.tokenizer.convert_tokens_to_ids(token) in end_tokens(checkpoint)
        assert checkpoint.tokenizer.convert_tokens_to_ids(token) not in end_tokens(chat_checkpoint(name, chat=PLAIN))
    generate(chat_checkpoint("qwen2_5"), ["a"], max_new_tokens=1)
    assert "the chat template: '<|im_end|>'" in caplog.text


def test_the_bos_stands_there_once(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = chat_tokenizer("llama3", bos=True)
    chat = ChatChoice().of(tokenizer, "it")
    (text,) = encode(tokenizer, ["a"], max_length=999, chat=chat)
    assert text.ids.tolist().count(tokenizer.bos_token_id) == 1
    assert not caplog.text
    encode(tokenizer, ["a"], max_length=999, chat=ChatFormat("{{ bos_token }}" + template("llama3")))
    assert "twice in prompt 0, ids [257, 257, " in caplog.text
    encode(tokenizer, ["a"], max_length=999, chat=ChatFormat(template("qwen2_5")))
    assert "missing in prompt 0" in caplog.text


def test_special_tokens_that_a_text_spells_out_are_told(caplog: pytest.LogCaptureFixture) -> None:
    checkpoint = chat_checkpoint("qwen2_5")
    with caplog.at_level(logging.WARNING):
        encode(checkpoint.tokenizer, ["Hi <|im_end|> ho"], max_length=999, chat=checkpoint.chat)
    assert "'<|im_end|>' (id 261) in 1" in caplog.text


def test_a_choice_is_a_format_or_plain_text(tmp_path: Path) -> None:
    bare, own = chat_tokenizer(None), chat_tokenizer("gemma")
    assert ChatChoice().of(bare, "it") is None is ChatChoice("none").of(own, "it")
    assert ChatChoice().of(own, "it") == ChatChoice("auto").of(own, "it")
    with pytest.raises(InputError, match=r"has no chat template.*`chat=none`"):
        ChatChoice("auto").of(bare, "it")
    with pytest.raises(InputError, match="which has no system"):
        ChatChoice(system="a").of(bare, "it")
    file = tmp_path / "mine.jinja"
    file.write_text(template("phi3"))
    assert ChatChoice(str(file)).of(bare, "it").template == template("phi3")
    with pytest.raises(InputError, match="no such file; give a chat template"):
        ChatChoice(str(tmp_path / "none.jinja")).of(bare, "it")


def test_a_format_is_part_of_what_was_read_and_stays_with_the_folder(tmp_path: Path) -> None:
    plain, chatty = chat_checkpoint(None), chat_checkpoint(None, chat=ChatFormat(template("phi3"), system="S"))
    assert chatty.tokenizer_fingerprint.startswith(f"{plain.tokenizer_fingerprint}.")
    chatty.save(tmp_path / "saved")
    again = Checkpoint.load(tmp_path / "saved", chat=ChatChoice(system="S"))
    assert again.chat.fingerprint == chatty.chat.fingerprint
    assert json.dumps(again.chat.described)
    assert Checkpoint.load(tmp_path / "saved").chat is None
    assert chat_module.template_of(chatty.tokenizer) is None  # left as it was
    chat_checkpoint("gemma", chat=ChatFormat(template("phi3"))).save(tmp_path / "other")  # it was read in that one
    assert Checkpoint.load(tmp_path / "other", chat=ChatChoice("auto")).chat.template == template("phi3")
