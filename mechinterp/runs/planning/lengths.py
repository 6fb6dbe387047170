"""Texts that are sure to be too long for the model's context or for the settings, found before anything runs.

Only what would certainly end a stage with an error is listed, so that a plan without problems may still meet a text
that does not fit (a generalisation prompt, a comment that was not drawn). Of each kind, the texts with the most
characters are tokenised.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerBase

from mechinterp.methods.method import Method
from mechinterp.models.names import HookNames
from mechinterp.runs.config import StudyConfig
from mechinterp.runs.planning.materials import Materials

_TRIED = 8  # texts of each kind


def too_long(materials: Materials, config: StudyConfig, methods: Sequence[Method]) -> Iterator[str]:
    """Say what does not fit; nothing where the tokenizer or the texts are not there."""
    if materials.skeleton is None or materials.tokenizer is None:
        return
    tokenizer = materials.tokenizer
    context = HookNames(materials.skeleton.config).context_length
    for split in ("train", "validation", "test"):
        instances = getattr(materials, split)
        responses = [text for i in instances for text in (i.safe, i.unsafe)]
        if split == "train":
            for method in (method for method in methods if method.recipe.responses):
                texts = [getattr(i, field) for i in instances for field in method.recipe.responses]
                most = getattr(config.settings_of(method.name), "max_length", 0)
                # the response, a space before it and the end token, and one token of the prompt
                if (longest := _longest(texts, tokenizer)) > most - 2:
                    yield (
                        f"{method.name}: a training response has {longest:,} tokens, which leaves no room for its "
                        f"prompt in max_length {most:,}; raise it"
                    )
        elif not config.truncate:
            new = config.max_new_tokens if split == "test" else config.comparison.max_new_tokens
            longest = _longest([i.prompt for i in instances], tokenizer)
            if longest + new > context:
                yield (
                    f"a {split} prompt has {longest:,} tokens, with {new:,} to write more than the context of "
                    f"{context:,}; set `truncate: true` to cut such prompts on the left"
                )
            if split == "test" and (longest := _longest(responses, tokenizer)) > context:
                yield (
                    f"a test response has {longest:,} tokens, the context {context:,}; set `truncate: true` to cut it"
                )
    drawn = config.data is None or config.data.max_comments is None
    longest = _longest([comment.text for comment in materials.comments], tokenizer) if drawn else 0
    if longest > context and not config.truncate:
        yield f"a comment has {longest:,} tokens, the context {context:,}; set `truncate: true` to cut such comments"


def _longest(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> int:
    tried = sorted(texts, key=len, reverse=True)[:_TRIED]
    return max((len(ids) for ids in tokenizer(tried, verbose=False)["input_ids"]), default=0) if tried else 0
