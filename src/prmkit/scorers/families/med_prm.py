r"""Med-PRM: a language model read at an added token behind each step, inside of the user's turn.

    user: Question: {question}\n\nExplanation: Step 1: … ки Step 2: … ки

The published code applies the chat template and tokenises the result again with special tokens, so
the beginning-of-text token stands there twice; the model knows no other input. Documents that
were retrieved for a problem are read from its ``meta["documents"]``, a list of texts; they stand
before the question as "Document 1: …", and the system message speaks of them. Score = softmax over
the logits of " +" and " -", share of " +".

Header: Yun et al. 2025, arXiv:2506.11474; dmis-lab/llama-3.1-medprm-reward-v1.0.
"""

from __future__ import annotations

from prmkit.chat import Tokenizer, beginning, encode_text, single_token, turns
from prmkit.errors import InvalidRecord
from prmkit.records import Problem, Step
from prmkit.scorers.families.base import Discriminative, Piece
from prmkit.scorers.families.heads import TokenRows
from prmkit.scorers.families.reading import first_of_two
from prmkit.scorers.families.wording import numbered

TAG = " ки"
SYSTEM = (
    "You are an evaluator assessing the logicality and validity of the reasoning in each step of "
    "the given explanation. In order to support the evaluation, {given} provided{how}. If the "
    "reasoning contains errors, output - after that step. If the reasoning in a step is logical "
    "and valid, output + after that step."
)


def documents(problem: Problem) -> list[str]:
    """What was retrieved for a problem.

    Raises:
        InvalidRecord: if its ``meta["documents"]`` is no list of texts.
    """
    found = problem.meta.get("documents", [])
    items = found if isinstance(found, list) else [None]
    texts = [text for text in items if isinstance(text, str)]
    if len(texts) < len(items):
        raise InvalidRecord(f"meta['documents'] is {found!r:.80}; expected a list of texts")
    return texts


def begin(problem: Problem, tokenizer: Tokenizer) -> list[int]:
    """Twice the beginning of text, the system message, and the question in the user's turn."""
    found = documents(problem)
    system = SYSTEM.format(
        given="the relevant documents, the question, and the explanation are"
        if found
        else "the question and the explanation are",
        how=" sequentially" if found else "",
    )
    text = "".join(f"Document {i}: {text}\n\n" for i, text in enumerate(found, 1))
    text += f"Question: {problem.text}\n\nExplanation:"
    return beginning(tokenizer) + turns(tokenizer, system).start + encode_text(tokenizer, text)


def step(step: Step, index: int, tokenizer: Tokenizer) -> Piece:
    """A numbered step after a space, and its tag."""
    text = encode_text(tokenizer, " " + numbered(step.text, index))
    return Piece([*text, single_token(tokenizer, TAG)], len(text))


FAMILY = Discriminative(
    name="med_prm",
    begin=begin,
    step=step,
    read=first_of_two,
    head=TokenRows((" +", " -")),
    semantics="correctness",
    tags=(TAG,),
)
