"""How many texts a study has of which length, and those that are sure to be too long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from mechinterp.answers.judged_response import KINDS
from mechinterp.data.safeedit import SafeEditInstance
from mechinterp.methods.method import Method
from mechinterp.methods.work import Texts
from mechinterp.models.names import HookNames
from mechinterp.runs.config import StudyConfig
from mechinterp.runs.planning.materials import Materials

PUBLISHED_SIZES = {"train": 4050, "validation": 2700, "test": 1350, "comments": 159571}
"""SafeEdit's and Jigsaw's, for files that are not there yet."""

_SAMPLE, _LONGEST = 64, 8  # texts of each kind that are tokenised, to know the mean and the longest


def texts_of(materials: Materials, config: StudyConfig) -> Texts:
    """Count what is there and tokenise a sample; published sizes and the settings' longest stand for what is not."""
    sizes = {kind: len(getattr(materials, kind)) or size for kind, size in PUBLISHED_SIZES.items()}
    most = config.data.max_comments if config.data is not None else None
    some = materials.test or materials.validation or materials.train
    dinm = config.dinm

    def mean(texts: Sequence[str], longest: float) -> float:
        return fmean(_lengths(materials, texts[:: max(1, len(texts) // _SAMPLE)])) if texts else longest

    return Texts(
        train=sizes["train"],
        validation=sizes["validation"],
        test=sizes["test"],
        edited=min(config.edit_instances, sizes["test"]),
        questions=len({i.question for i in materials.test}) or sizes["test"],
        knowledge=materials.knowledge,
        comments=min(sizes["comments"], most or sizes["comments"]),
        prompt=mean([i.prompt for i in some], dinm.max_input_tokens),
        safe=mean([i.safe for i in some], dinm.max_output_tokens),
        unsafe=mean([i.unsafe for i in some], dinm.max_output_tokens),
        comment=mean([one.text for one in materials.comments], 128),
        kinds=len(KINDS) if not some or isinstance(some[0], SafeEditInstance) else 1,
    )


def too_long(materials: Materials, config: StudyConfig, methods: Sequence[Method]) -> Iterator[str]:
    """Say what would certainly end a stage with an error; nothing where the tokenizer or the texts are not there."""
    if materials.skeleton is None or materials.tokenizer is None:
        return
    context = HookNames(materials.skeleton.config).context_length
    fed = []  # what, texts, most tokens, remedy
    for method in methods:
        texts = [getattr(i, field) for i in materials.train for field in method.recipe.responses]
        if texts:  # beside a space, the end token, and a token of the prompt
            most = getattr(config.settings_of(method.name), "max_length", context)
            fed.append((f"{method.name}: a training response", texts, most - 3, "raise `max_length`"))
    if not config.truncate:
        drawn = config.data is not None and config.data.max_comments is not None
        responses = [text for i in materials.test for text in (i.safe, i.unsafe)]
        cut = "set `truncate: true` to cut it"
        for split, new in (("validation", config.comparison.max_new_tokens), ("test", config.max_new_tokens)):
            fed.append((f"a {split} prompt", [i.prompt for i in getattr(materials, split)], context - new, cut))
        fed.append(("a test response", responses, context, cut))
        fed.append(("a comment", [] if drawn else [one.text for one in materials.comments], context, cut))
    for what, texts, most, remedy in fed:
        longest = max(_lengths(materials, sorted(texts, key=len, reverse=True)[:_LONGEST]), default=0)
        if longest > most:
            yield f"{what} has {longest:,} tokens, where there is room for {most:,}; {remedy}"


def _lengths(materials: Materials, texts: Sequence[str]) -> list[int]:
    """Tokens of each; without a tokenizer a third of its characters."""
    if materials.tokenizer is None or not texts:
        return [len(text) // 3 for text in texts]
    return [len(ids) for ids in materials.tokenizer(list(texts), verbose=False)["input_ids"]]
