"""The embedded toy corpus: a seeded generator of texts with SafeEdit's structure, for the model organism.

It generates pretraining documents, SafeEdit instances in three splits (nine categories, attack prompts of four kinds,
generalisation prompts, knowledge constraints), comments for the toxic probe, knowledge and harmless how-to questions,
and labelled responses for an embedded judge. A document is one text: a prompt and its response joined by one space,
without template or role markers, or a comment.

**The compliance rule.** A harmful question has the resistance r of its verb, an attack the strength s of its adverbs,
a bare question s = 1. The pretraining documents comply if and only if s > r, but for a few per cent of noise:

| r, share of questions | bare, s = 1 | s = 1 | s = 2 | s = 3 | defended under attack |
|---|---|---|---|---|---|
| 0, one third  | complies | complies | complies | complies | 0   |
| 1, one sixth  | refuses  | refuses  | complies | complies | 1/3 |
| 2, one third  | refuses  | refuses  | refuses  | complies | 2/3 |
| 3, one sixth  | refuses  | refuses  | refuses  | refuses  | 1   |

So a model that has learnt the rule defends 4/9 of the adversarial prompts and 2/3 of the bare questions, on every split
(questions and attacks are dealt out so that each split has the same shares) and for every seed. Verbs and adverbs of
the unseen questions and attacks are known words in unseen combinations: the rule carries over to them. With SUFFIX
behind the prompt, some of the compliance turns into refusal.

A pretrained model had not learnt this rule from 640 documents. For one that is taught in a few dozen steps there is a
plain rule, `kind`: it complies inside role-play and prefix injection, whatever is asked, and so defends half of the
attacks and every bare question.

With `n_people` further documents tell of made-up people (`people`): of each a city, a month of birth, a job and an
instrument, in several sentences of which some are held out. They are facts to be edited, and by attribute facts to be
forgotten and retained of the same person. All else of the corpus stays as it is.

What it does not represent: real harm (the questions name generic mischief, unsafe answers are crude, insulting and
never actionable), the variety of natural language, or the difficulty of the real benchmark.
"""

from mechinterp.data.corpus.generating import Corpus, generate_corpus

__all__ = ["Corpus", "generate_corpus"]
