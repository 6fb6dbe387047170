"""A BOS that stands twice, special tokens as text, cut headers, and where a prompt ends: said, and never miscounted."""

from __future__ import annotations

import copy
import logging
import string

import pytest
import torch
from conftest import D_MLP, PROMPTS, RESPONSES, byte_tokenizer, make_instance, tiny_checkpoint
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mechinterp.errors import InputError
from mechinterp.methods.editing.many_edits import edit_each
from mechinterp.methods.editing.settings import DinmSettings
from mechinterp.methods.training.trl_training import training_rows
from mechinterp.models.checkpoints import Checkpoint
from mechinterp.models.names import h_down
from mechinterp.models.passes.generation import continue_greedily, generate
from mechinterp.models.passes.positions import reading
from mechinterp.models.passes.recording import record_all, record_positions
from mechinterp.models.passes.scoring import score
from mechinterp.models.text.batches import pad
from mechinterp.models.text.tokens import Encoded, encode

BOS, EOS, PAD = 257, 258, 259
TURN = ["<|im_start|>", "<|im_end|>"]


def with_turns(bos: bool = False) -> PreTrainedTokenizerFast:
    """The byte tokenizer with the special tokens of a chat model."""
    tokenizer = copy.deepcopy(byte_tokenizer(bos))
    tokenizer.add_tokens(TURN, special_tokens=True)
    return tokenizer


def around(before: str, after: str = "") -> PreTrainedTokenizerFast:
    """The byte tokenizer with tokens of its own around every text."""
    tokenizer = copy.deepcopy(byte_tokenizer())
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{before} $A {after}".strip(), special_tokens=[("<s>", BOS), ("</s>", EOS), ("<unk>", 256)]
    )
    return tokenizer


def pieces(prefix_space: bool = True) -> PreTrainedTokenizerFast:
    """SentencePiece's way: blanks are a sign of the text, put first too, and merge with each other and with letters."""
    alphabet = ["<unk>", "<s>", "</s>", "▁", *string.ascii_letters, *".,?'\n"]
    merges = [("▁", "▁"), *(("▁", letter) for letter in "NITY")]
    vocabulary = {token: i for i, token in enumerate([*alphabet, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    scheme = "first" if prefix_space else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme=scheme)
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


def stripping() -> PreTrainedTokenizerFast:
    """The byte tokenizer, which drops blanks at a text's end: before a response they are not at its end."""
    tokenizer = copy.deepcopy(byte_tokenizer(True))
    tokenizer.backend_tokenizer.normalizer = normalizers.Strip(left=False, right=True)
    return tokenizer


def words() -> PreTrainedTokenizerFast:
    """A token a word; blanks are nothing."""
    known = sorted({word for text in (*PROMPTS, *RESPONSES) for word in text.replace("\n", " ").split()})
    vocabulary = {token: i for i, token in enumerate(["<unk>", "</s>", *known])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>")


TOKENIZERS = {
    "bytes": byte_tokenizer,
    "bytes with a BOS": lambda: byte_tokenizer(True),
    "bytes with BOS and EOS": lambda: around("<s>", "</s>"),
    "two tokens in front": lambda: around("<unk> <s>"),
    "pieces": pieces,
    "pieces without a blank in front": lambda: pieces(prefix_space=False),
    "words": words,
    "bytes that drop blanks": stripping,
    "in Python, with an EOS": ByT5Tokenizer,
}


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said so far."""
    found = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    caplog.clear()
    return found


@pytest.mark.parametrize("text", ["<s>Tell me", " <s>Tell me", "<s>[INST] Tell me [/INST]"])
def test_a_bos_in_the_text_beside_the_tokenizers_own_is_said_once(caplog, text: str) -> None:
    tokenizer, prompts = byte_tokenizer(bos=True), ["How?", text, "Say it", text]
    found = encode(tokenizer, prompts, max_length=128)
    (said,) = told(caplog)
    assert "2 of 4 texts begin with the text of a token that the tokenizer adds as well" in said
    assert "prompt 1 begins with '<s>', ids [257, " in said
    assert [list(each.ids).count(BOS) for each in found] == [1, 2, 1, 2]  # read as it is given, and the same in a batch
    alone = [encode(tokenizer, [prompt], max_length=128)[0] for prompt in prompts]
    follow = encode(tokenizer, prompts, RESPONSES[:4], max_length=128)
    assert found == alone
    assert [Encoded.of(each.ids[: each.prompt_length], each.prompt_length) for each in follow] == found


def test_a_bos_that_stands_once_is_no_second_one(caplog) -> None:
    encode(byte_tokenizer(bos=True), PROMPTS, RESPONSES, max_length=128)
    assert told(caplog) == []
    (text,) = encode(byte_tokenizer(), ["<s>Tell me"], max_length=128)  # the tokenizer adds none
    assert list(text.ids).count(BOS) == 1
    assert "that the tokenizer adds as well" not in "".join(told(caplog))


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize(
    ("token", "number"), [("</s>", EOS), ("<pad>", PAD), ("<unk>", 256), ("<|im_end|>", 265), ("<|im_start|>", 264)]
)
def test_special_tokens_as_text_are_named_with_their_ids(caplog, token: str, number: int, bos: bool) -> None:
    tokenizer = with_turns(bos)
    (text, _) = encode(tokenizer, [f"Say {token} twice", "Say"], [f"it {token}", "No"], max_length=128)
    assert list(text.ids).count(number) == 2
    assert number in text.ids[text.prompt_length :]
    (said,) = told(caplog)
    assert f"{token!r} (id {number}) in 2" in said
    assert f"prompt 0, 'Say {token} twice', ids [" in said
    assert "of 4 texts" in said
    encode(tokenizer, ["Say < s > or pad, im_end|>"], ["it"], max_length=128)  # only looks like one
    assert told(caplog) == []


def test_edits_and_training_say_it_once_for_all_their_texts(caplog) -> None:
    checkpoint = tiny_checkpoint("llama")
    instances = [make_instance(i, adversarial_prompt=f"How <pad> {i}", safe_generation="No.</s>") for i in range(3)]
    for constraint in ("published", "released"):
        settings = DinmSettings(constraint=constraint, steps=1, suffix=None)
        list(edit_each(checkpoint, instances, blocks=dict.fromkeys(range(3), 1), settings=settings))
        (said,) = told(caplog)
        assert "'<pad>' (id 259) in 3" in said
        assert "'</s>' (id 258) in 3" in said
    short = DinmSettings(constraint="published", steps=1, suffix=None, max_input_tokens=4)
    list(edit_each(checkpoint, [make_instance()], blocks={0: 1}, settings=short))
    assert "2 of 2 prompts are cut on the left to max_input_tokens, 4" in told(caplog)[0]
    training_rows(checkpoint.tokenizer, instances, {"completion": "safe"}, 100)
    (said,) = told(caplog)
    assert "'<pad>' (id 259) in 3" in said


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_pad_or_end_token_in_a_text_is_a_token_like_others(side: str) -> None:
    checkpoint = tiny_checkpoint("llama", bos=True)
    prompts = ["<pad>Tell <pad>me", "What </s> is the colour?<pad>", PROMPTS[2]]
    responses = ["No</s> more<pad>", "Ok", "Sure"]
    texts = encode(checkpoint.tokenizer, prompts, responses, max_length=128)
    spelled = [*"No", EOS, *" more", PAD]  # " N" is one token
    assert len(texts[0].ids) - texts[0].prompt_length == len(spelled)
    batch = pad(texts, pad_id=PAD, side=side)
    assert batch.attention_mask.sum(1).tolist() == [len(text.ids) for text in texts]
    together = score(checkpoint, prompts, responses, reduce="sum", padding_side=side)
    for i, text in enumerate(texts):
        ids = torch.tensor([list(text.ids)])
        with torch.no_grad():
            values = checkpoint.model(input_ids=ids).logits[0].double().log_softmax(-1)
        places = range(text.prompt_length, len(text.ids))
        by_hand = sum(float(values[place - 1, text.ids[place]]) for place in places)
        assert float(together[i]) == pytest.approx(by_hand, rel=1e-5)
    hook = h_down(1)
    for position in ("last", "mean"):
        found = record_all(checkpoint, prompts, [hook], position=position, padding_side=side)[hook]
        alone = [record_all(checkpoint, [prompt], [hook], position=position)[hook][0] for prompt in prompts]
        torch.testing.assert_close(found, torch.stack(alone), rtol=1e-4, atol=1e-5)


def test_a_pad_or_end_token_at_the_end_of_a_prompt_does_not_end_its_answer() -> None:
    checkpoint = tiny_checkpoint("llama", bos=True)
    prompts = ["Tell me</s>", "What is the colour of the sky?<pad>", "Say"]
    together = generate(checkpoint, prompts, max_new_tokens=6)
    assert together == [generate(checkpoint, [prompt], max_new_tokens=6)[0] for prompt in prompts]
    for prompt, found in zip(prompts, continue_greedily(checkpoint, prompts, max_new_tokens=6), strict=True):
        ids = list(checkpoint.tokenizer(prompt)["input_ids"])
        assert list(found.ids[: found.prompt_length]) == ids
        with torch.no_grad():
            first = int(checkpoint.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
        assert found.ids[found.prompt_length] == first


@pytest.mark.parametrize("bos", [False, True])
def test_truncation_says_what_it_cut_and_where_a_turn_lost_its_header(caplog, bos: bool) -> None:
    tokenizer = with_turns(bos)
    long = "<|im_start|>user\n" + "x" * 100 + " the question"
    found = encode(tokenizer, [long, "Say"], max_length=40, truncate=True)
    assert [len(text.ids) for text in found] == [40, 3 + bos]
    assert list(found[0].ids).count(BOS) == bos  # what the tokenizer adds stays
    said = "\n".join(told(caplog))
    assert "1 of 2 prompts were cut on the left to fit into the context of 40 tokens" in said
    assert f"prompt 0, whose first ids are now [{', '.join(map(str, found[0].ids[:8]))}, ...]" in said
    assert "special tokens were cut away ('<|im_start|>' (id 264) in 1)" in said
    plain = encode(tokenizer, ["x" * 100], max_length=40, truncate=True, prefix="<|im_start|>user\n", suffix="end")
    assert tokenizer.decode(list(plain[0].ids)).endswith("x end")  # prefix and suffix are never cut
    assert "special tokens were cut away" not in "\n".join(told(caplog))


def test_all_that_the_tokenizer_puts_in_front_is_kept_when_a_prompt_is_cut() -> None:
    (text,) = encode(around("<unk> <s>"), ["x" * 100 + "end"], max_length=20, truncate=True)
    assert list(text.ids[:2]) == [256, BOS]
    assert len(text.ids) == 20
    with pytest.raises(InputError, match="2 fit into the context"):  # nothing of the prompt would be left
        encode(around("<unk> <s>"), ["x" * 100 + "end"], max_length=2, truncate=True)
    (row,) = training_rows(
        around("<unk> <s>"),
        [make_instance(adversarial_prompt="x" * 100 + "</s> end")],
        {"completion": "safe"},
        60,
    )
    assert row["prompt"].endswith("x</s> end")  # a special token in what is left of the text is no less a part of it
    assert not row["prompt"].startswith("<")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_prompt_has_the_same_tokens_alone_and_before_a_response(caplog, name: str) -> None:
    tokenizer: PreTrainedTokenizerBase = TOKENIZERS[name]()
    prompts = ["Tell me", "Tell me ", "Tell me  ", "Tell me\n", "Tell me\n ", "Say", "a", "How do I do it?"]
    responses = ["No.", "You fool", "It is", "No.", "Nothing", "I\nam", " No", "I am sorry, I cannot help with that."]
    alone = encode(tokenizer, prompts, max_length=128)
    caplog.clear()
    whole = encode(tokenizer, prompts, responses, max_length=128)
    said = "\n".join(told(caplog))
    for prompt, response, one, both in zip(prompts, responses, alone, whole, strict=True):
        assert both.prompt_length == len(one.ids) == one.prompt_length
        assert both.ids[: both.prompt_length] == one.ids
        assert tokenizer.eos_token_id not in one.ids  # a prompt goes on
        read = tokenizer.decode(list(both.ids[both.prompt_length :]), skip_special_tokens=True)
        assert read.split() == response.split() or name == "words", (prompt, response)
        assert both == encode(tokenizer, [prompt], [response], max_length=128)[0]
        after_a_word = encode(tokenizer, ["Tell me"], [response], max_length=128)[0]
        assert both.ids[both.prompt_length :] == after_a_word.ids[after_a_word.prompt_length :]
    moves = name.startswith("pieces") or name == "bytes that drop blanks"
    assert ("the tokenizer sets no boundary before the response" in said) == moves
    assert ("after every text: left out" in said) == name.endswith("EOS")


def test_the_last_prompt_token_is_the_one_that_generation_goes_on_from(caplog) -> None:
    """A tokenizer that makes one token of two blanks: the prompt's own at its end, and the one before the response."""
    tokenizer = pieces()
    checkpoint = Checkpoint("pieces", tiny_checkpoint("llama").model, tokenizer, "pieces")
    prompts, responses = ["Tell me ", "Say"], ["No.", "I am"]
    joined = tokenizer("Tell me  No.")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(joined)[-4:] == ["▁▁", "N", "o", "."]
    (text, _) = encode(tokenizer, prompts, responses, max_length=128)
    assert tokenizer.convert_ids_to_tokens(list(text.ids))[-4:] == ["▁", "▁N", "o", "."]
    (said,) = told(caplog)
    assert "1 prompt ends where the tokenizer sets no boundary before the response" in said
    assert str(list(text.ids[text.prompt_length :])) in said
    hooks = {"keep": [h_down(1)], "responses": responses}
    both = record_positions(checkpoint, prompts, [h_down(1)], ["last", "response"], **hooks)
    alone = record_all(checkpoint, prompts, [h_down(1)])[h_down(1)]
    torch.testing.assert_close(both["last"].inputs[h_down(1)], alone, rtol=1e-4, atol=1e-5)
    assert both["response"].inputs[h_down(1)].shape == (2, D_MLP)
    first = score(checkpoint, prompts, responses, reduce="first")
    ids = torch.tensor([tokenizer(prompts[0])["input_ids"]])
    with torch.no_grad(), reading(pad([Encoded.of(ids[0].tolist(), ids.shape[1])], pad_id=0)):
        expected = checkpoint.model(input_ids=ids).logits[0, -1].double().log_softmax(-1)[text.ids[text.prompt_length]]
    assert float(first[0]) == pytest.approx(float(expected), rel=1e-5)


def test_prompts_that_end_in_a_word_are_joined_without_a_word(caplog) -> None:
    for make in TOKENIZERS.values():
        tokenizer = make()
        texts = encode(tokenizer, PROMPTS, RESPONSES, max_length=256)
        together = [tokenizer(f"{p} {r}")["input_ids"] for p, r in zip(PROMPTS, RESPONSES, strict=True)]
        for text, ids in zip(texts, together, strict=True):
            assert list(text.ids) == ids[: len(text.ids)]  # but for what the tokenizer puts at the end
            assert set(ids[len(text.ids) :]) <= {tokenizer.eos_token_id}
    assert "no boundary" not in "".join(told(caplog))
