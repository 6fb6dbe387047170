"""Whether what was made with a model (a probe, a direction, an edit, a recording) is used with the same tokenizer.

Equal weights under another tokenizer (a BOS that is added or not, other merges) read other tokens, so that what was
made with the one is not of the other. The weights are told by their own fingerprint.
"""

from __future__ import annotations

import logging

from mechinterp.errors import InputError

logger = logging.getLogger(__name__)


def check_tokenizer(what: str, made_with: str, tokenizer: str | None, source: str, *, of_weights: str = "") -> None:
    """Refuse what was made with another tokenizer than a model's, by fingerprints (`Checkpoint.tokenizer_fingerprint`).

    Of another chat format with the same tokenizer it is said: what was made can be used, but on other texts.

    Args:
        what: what it is called in errors.
        made_with: the tokenizer that it was made with; empty where that is not known.
        tokenizer: the model's; None where there is none to compare with.
        source: what the model is called in errors.
        of_weights: the weights that it says it is of. Where it knows these and no tokenizer it was saved before
            tokenizers were remembered, and a warning says so; a bare file knows neither.

    Raises:
        InputError: if they differ.
    """
    if tokenizer is None:
        return
    (own_made, _, chat_made), (own, _, chat) = made_with.partition("."), tokenizer.partition(".")
    if made_with and own_made == own and chat_made != chat:
        logger.warning(
            "%s was made with texts in another chat format than %s is read in (or in none): give both the same `chat`, "
            "`system`, `thinking` and `date`, or make it again",
            what,
            source,
        )
    if made_with and own_made != own:
        raise InputError(
            f"{what} was made with another tokenizer than that of {source}, which reads other tokens with the same "
            "weights (is a BOS added in one alone?); make it again for this one, or give the tokenizer's files it was "
            "made with"
        )
    if not made_with and of_weights:
        logger.warning("%s does not say which tokenizer it was made with: not checked; make it again to be sure", what)
