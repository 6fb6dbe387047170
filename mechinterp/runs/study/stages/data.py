"""Stage `data`: the generated corpus, or the user's files copied beside the results."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from mechinterp.data.benign import BenignPrompt, read_benign
from mechinterp.data.comments import Comment, read_comments, share_of, write_comments
from mechinterp.data.facts.fact import write_facts
from mechinterp.data.knowledge import read_knowledge
from mechinterp.data.labelled_responses import read_labelled_responses
from mechinterp.data.normalised import normalised
from mechinterp.data.pair_files import write_pairs
from mechinterp.data.pairs import AnyPair
from mechinterp.data.personality import write_personality
from mechinterp.data.storage.files import write_json, write_json_lines
from mechinterp.models.progress import Reporter
from mechinterp.runs.study.corpus import corpus_of
from mechinterp.runs.study.run import Run
from mechinterp.runs.study.splits import SPLITS, about_of, read_split, split_corpus

_logger = logging.getLogger(__name__)


def make(run: Run, reporter: Reporter) -> None:
    """Instances, comments, knowledge questions, harmless prompts, and the responses that a judge is trained on."""
    data, about = run.folder / "data", about_of(run.config)
    knowledge: list[tuple[str, str]] = []
    benign: list[BenignPrompt] = []
    if run.config.data is None:
        corpus = corpus_of(run)
        splits = split_corpus(about, corpus)
        comments: Sequence[Comment] = corpus.comments
        knowledge = [(question.prompt, question.keyword) for question in corpus.knowledge if question.held_out]
        benign = [BenignPrompt(question.prompt, question.answer) for question in corpus.benign]
        responses = [(response.text, response.safe) for response in corpus.responses]
        if corpus.topics:
            write_personality(corpus.topics, data / "topics.json")
        if corpus.facts:
            write_facts(corpus.facts, data / "facts.jsonl")
    else:
        files = run.config.data
        splits = {name: read_split(about, getattr(files, name)) for name in SPLITS}
        comments = read_comments(files.comments, text_column=files.text_column, label_column=files.label_column)
        comments = share_of(comments, files.max_comments, run.seed)
        knowledge = read_knowledge(files.knowledge) if files.knowledge is not None else []
        benign = read_benign(files.benign) if files.benign is not None else []
        responses = [(i.safe, True) for i in splits["train"]]
        responses += [(i.unsafe, False) for i in splits["train"]]
    if run.config.judge_responses is not None:
        responses = [(one.text, one.safe) for one in read_labelled_responses(run.config.judge_responses)]
    for name, instances in splits.items():
        write_pairs(instances, data / f"{name}.json")
    write_comments(comments, data / "comments.csv")
    write_json(data / "knowledge.json", knowledge)
    write_json_lines(data / "benign.jsonl", [{"prompt": one.prompt, "answer": one.answer} for one in benign])
    write_json(data / "responses.json", _unseen(responses, splits) if about is None else [])


def _unseen(responses: Sequence[tuple[str, bool]], splits: Mapping[str, Sequence[AnyPair]]) -> list[tuple[str, bool]]:
    """What a judge is made from: none of the responses to the questions of the instances that it judges."""
    judged = [*splits["validation"], *splits["test"]]
    questions = {normalised(i.question) for i in judged}
    shared = [i for i in splits["train"] if normalised(i.question) in questions]
    if shared:
        _logger.warning("%d training instances share a question with validation or test instances", len(shared))
    texts = {normalised(text) for i in (*judged, *shared) for text in (i.safe, i.unsafe)}
    return [(text, safe) for text, safe in responses if normalised(text) not in texts]
