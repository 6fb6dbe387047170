"""Which judge: the one that is given, one in a folder, keywords, or one trained on labelled responses; or two of them.

A judge is named by the folder or hub id of a sequence classifier; by `keywords` (what begins like a refusal is safe),
or `keywords:FILE` (what has a word of the file is unsafe); or by `embedded`, the one that is made here: of a file of
labelled responses if there is one, else of the data's own answers. Of two the first decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mechinterp.answers.fold_judge import FoldJudge
from mechinterp.answers.judges import ClassifierJudge, EmbeddedJudge, Judge
from mechinterp.answers.keyword_judge import KeywordJudge
from mechinterp.answers.two_judges import TwoJudges
from mechinterp.data.counting import many
from mechinterp.data.labelled_responses import read_labelled_responses
from mechinterp.data.pairs import AnyPair
from mechinterp.errors import InputError

Named = Judge | str | Path
"""A judge, or the name of one."""

EMBEDDED = "embedded"
KEYWORDS = "keywords"


def choose_judge(
    judge: Named | Sequence[Named] | None,
    instances: Sequence[AnyPair],
    *,
    seed: int,
    device: str = "auto",
    note: Callable[[str], None] = lambda text: None,
    responses: str | Path | None = None,
    safe_label: str | None = None,
) -> Judge:
    """The judge that is meant.

    Args:
        judge: one itself or its name, or two of them; None for `embedded`.
        instances: the data, of whose safe and unsafe responses one is made that judges none that it has seen.
        seed: of a judge that is made.
        device: of a classifier.
        note: is told which it is.
        responses: file of labelled responses, of which `embedded` is then made; it is the first, unless it is named.
        safe_label: name or number of a classifier's safe label, where its config does not tell.

    Raises:
        InputError: if there is no such judge, or none can be made.
    """

    def made() -> Judge:
        return made_of_data(instances, seed, note) if responses is None else made_of_file(responses, seed, note)

    return judge_named(judges_of(judge, responses), made, device=device, note=note, safe_label=safe_label)


def judges_of(judge: Named | Sequence[Named] | None, responses: str | Path | None = None) -> list[Named]:
    """The one or two judges that are meant, `embedded` among them where it is told of what it is made.

    Raises:
        InputError: for more than two, or the same twice.
    """
    if judge is not None and not isinstance(judge, str | Path | Sequence) and not callable(judge):
        raise InputError(f"judge is a {type(judge).__name__}; give a judge, the name of one, or two of them")
    given = [] if judge is None else [judge] if isinstance(judge, str | Path) or callable(judge) else list(judge)
    if not given or (responses is not None and EMBEDDED not in given):
        given = [EMBEDDED, *given]
    if len(given) > 2:
        raise InputError(f"there may be two judges, got {len(given)}: {', '.join(map(_called, given))}")
    if len(given) == 2 and given[0] == given[1]:
        raise InputError(f"the two judges are the same, {_called(given[0])}; give another, or one")
    return given


def judge_named(
    given: Sequence[Named],
    made: Callable[[], Judge],
    *,
    device: str,
    note: Callable[[str], None] = lambda text: None,
    safe_label: str | None = None,
) -> Judge:
    """One judge, or two.

    Args:
        given: see `judges_of`.
        made: makes the embedded one.

    Raises:
        InputError: if there is no such judge; or a safe label is given and no classifier.
    """
    classifiers = [one for one in given if isinstance(one, str | Path) and _is_classifier(str(one))]
    if safe_label is not None and not classifiers:
        raise InputError("a safe label is that of a sequence classifier; name one as the judge, or leave the label out")

    def one(named: Named) -> Judge:
        if not isinstance(named, str | Path):
            return named
        if str(named) == EMBEDDED:
            return made()
        note(f"judge: {named}")
        if named in classifiers:
            return ClassifierJudge.load(named, device=device, safe_label=safe_label)
        path = str(named).removeprefix(KEYWORDS).removeprefix(":")
        return KeywordJudge.read(path) if path else KeywordJudge()

    judges = [one(named) for named in given]
    return judges[0] if len(judges) == 1 else TwoJudges(*judges)


def made_of_data(instances: Sequence[AnyPair], seed: int, note: Callable[[str], None]) -> FoldJudge:
    """A judge of the data's own answers, none of which is judged by what was trained on it."""
    made = FoldJudge.of_instances(instances, seed=seed)
    note(
        f"judge: trained on the data's own {many(made.n_train, 'response')}, always without those to the question "
        f"judged; accuracy {made.accuracy:.3f} on {made.n_test} so held out; give a sequence classifier as `judge`"
    )
    return made


def made_of_file(path: str | Path, seed: int, note: Callable[[str], None]) -> EmbeddedJudge:
    """A judge of labelled responses, scored on a share of them; texts that are the same count once.

    Raises:
        InputError: as `read_labelled_responses`, and for too few of a kind.
    """
    labelled = read_labelled_responses(path)
    try:
        made = EmbeddedJudge.fit([one.text for one in labelled], [one.safe for one in labelled], seed=seed)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    note(
        f"judge: trained on {made.n_train} of the different texts among {many(len(labelled), 'response')} in {path}; "
        f"{made.scores_said}"
    )
    return made


def _is_classifier(name: str) -> bool:
    return name not in (EMBEDDED, KEYWORDS) and not name.startswith(f"{KEYWORDS}:")


def _called(judge: Named) -> str:
    return str(judge) if isinstance(judge, str | Path) else judge.name
