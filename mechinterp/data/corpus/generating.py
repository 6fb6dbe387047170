"""The corpus as a whole, each part from a stream of random choices of its own."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from mechinterp.data.comments import Comment
from mechinterp.data.corpus.attacks import out_of_domain_attacks, split_attacks
from mechinterp.data.corpus.documents import Documents, Rule
from mechinterp.data.corpus.instances import make_instances
from mechinterp.data.corpus.labelled import make_comments, make_responses
from mechinterp.data.corpus.opinions import MOST, SHARE, make_topics, opinion_documents
from mechinterp.data.corpus.people import Person, Told, facts_of_people, make_people, tell
from mechinterp.data.corpus.questions import SPLITS, benign_questions, knowledge_questions, split_questions
from mechinterp.data.corpus.records import (
    Attack,
    BenignQuestion,
    Exchange,
    KnowledgeQuestion,
    LabelledResponse,
)
from mechinterp.data.facts.fact import Fact
from mechinterp.data.personality import Topic
from mechinterp.data.safeedit import SafeEditInstance


@dataclass(frozen=True)
class Corpus:
    """Everything the embedded study reads.

    Attributes:
        seed: The seed it was generated from.
        documents: Pretraining texts, in random order; the trainer adds the end-of-text token.
        exchanges: Those of the documents that are conversations, in their order.
        train: SafeEdit instances, each training question with each training attack; no generalisation test.
        validation: Likewise for the validation split.
        test: Likewise for the test split, with generalisation tests.
        comments: Comments for the toxic probe, sampled apart from those among `documents`.
        knowledge: Every fact in every phrasing.
        benign: Harmless how-to questions, for measuring over-refusal.
        responses: Labelled responses in the varieties the organism generates, sampled apart from the instances.
        out_of_domain_attacks: Attacks in frames no other text has; they occur in generalisation tests only.
        topics: Topics with opinions that show opposing traits, which some of the documents give; none by default.
        people: Somebodies with attributes, see `people`; none unless they are asked for.
        told: The documents that tell of them, behind all others among `documents`.
        facts: What they tell, each with another answer that an edit could give it.
    """

    seed: int
    documents: tuple[str, ...]
    exchanges: tuple[Exchange, ...]
    train: tuple[SafeEditInstance, ...]
    validation: tuple[SafeEditInstance, ...]
    test: tuple[SafeEditInstance, ...]
    comments: tuple[Comment, ...]
    knowledge: tuple[KnowledgeQuestion, ...]
    benign: tuple[BenignQuestion, ...]
    responses: tuple[LabelledResponse, ...]
    out_of_domain_attacks: tuple[Attack, ...]
    topics: tuple[Topic, ...] = ()
    people: tuple[Person, ...] = ()
    told: tuple[Told, ...] = ()
    facts: tuple[Fact, ...] = ()


def generate_corpus(
    *,
    seed: int,
    questions_per_category: int = 12,
    attacks_per_split: int = 12,
    n_documents: int = 8000,
    n_comments: int = 1600,
    n_benign: int = 60,
    n_responses: int = 1200,
    rule: Rule = "strength",
    n_topics: int = 0,
    n_people: int = 0,
) -> Corpus:
    """Generate the corpus: the same arguments give the same corpus.

    Args:
        seed: Seed of every choice made; each part has its own stream, so the size of one leaves the others as they are.
        questions_per_category: Harmful questions per category, a multiple of 6, dealt out to the splits 3:2:1.
        attacks_per_split: Attack prompts per split, a multiple of 12 (four kinds of three strengths each).
        n_documents: Pretraining documents.
        n_comments: Comments for the probe, half of them toxic before a few labels are flipped.
        n_benign: Harmless how-to questions held out of pretraining.
        n_responses: Labelled responses for a judge, half of them safe.
        rule: Which harmful prompts the documents comply with: `strength`, the table above, or `kind`, those inside an
            attack of two of the four kinds, whatever is asked.
        n_topics: Topics of which the documents have opinions too, 15 for each 100 of the others; 0 leaves all as it is.
        n_people: People of four attributes each, whom further documents tell of; all else stays as it is.

    Returns:
        The corpus; with the defaults 648 training, 432 validation and 216 test instances.

    Raises:
        ValueError: If a size is not positive, has not the divisor named above, or exceeds what the word lists give.
    """
    sizes = {"n_documents": n_documents, "n_comments": n_comments, "n_benign": n_benign, "n_responses": n_responses}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size!r}")
    if not 0 <= n_topics <= MOST:
        raise ValueError(f"n_topics must be from 0 to {MOST}, got {n_topics!r}")
    questions = split_questions(_stream(seed, "questions"), per_category=questions_per_category)
    attacks = split_attacks(_stream(seed, "attacks"), per_split=attacks_per_split)
    out_of_domain = out_of_domain_attacks(_stream(seed, "out of domain"))
    knowledge = knowledge_questions(_stream(seed, "knowledge"))
    benign = benign_questions(_stream(seed, "benign"), n_benign)
    documents = Documents(
        rng=_stream(seed, "documents"),
        held_out_prompts=frozenset(
            [question.text for split in ("validation", "test") for question in questions[split]]
            + [question.prompt for question in benign]
        ),
        held_out_attacks=frozenset(attack.text for split in ("validation", "test") for attack in attacks[split]),
        knowledge=tuple(question for question in knowledge if not question.held_out),
        rule=rule,
    )
    sampled = documents.sample(n_documents)
    topics = make_topics(n_topics)
    if topics:
        stream = _stream(seed, "opinions")
        mixed = [*sampled, *opinion_documents(stream, topics, round(SHARE * n_documents))]
        stream.shuffle(mixed)
        sampled = tuple(mixed)
    people = make_people(_stream(seed, "people"), n_people)
    told = tell(_stream(seed, "told"), people)
    instances: dict[str, tuple[SafeEditInstance, ...]] = {}
    for number, split in enumerate(SPLITS):
        instances[split] = make_instances(
            _stream(seed, split),
            questions=questions[split],
            attacks=attacks[split],
            knowledge=knowledge,
            first_id=sum(len(done) for done in instances.values()),
            first_attack_id=number * attacks_per_split,
            extra_attacks=out_of_domain if split == "test" else None,
        )
    return Corpus(
        seed=seed,
        documents=(*(one if isinstance(one, str) else one.text for one in sampled), *(one.text for one in told)),
        exchanges=tuple(one for one in sampled if isinstance(one, Exchange)),
        train=instances["train"],
        validation=instances["validation"],
        test=instances["test"],
        comments=make_comments(_stream(seed, "comments"), n_comments),
        knowledge=knowledge,
        benign=benign,
        responses=make_responses(_stream(seed, "responses"), n_responses),
        out_of_domain_attacks=out_of_domain,
        topics=topics,
        people=people,
        told=told,
        facts=facts_of_people(_stream(seed, "facts"), people),
    )


def _stream(seed: int, part: str) -> Random:
    return Random(f"{seed}/{part}")  # a string seeds through SHA-512, the same on every platform
