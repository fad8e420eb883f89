r"""Med-PRM: a language model read at an added token behind each step, inside of the user's turn.

    user: Question: {question}\n\nExplanation: Step 1: … ки Step 2: … ки

The published code applies the chat template and tokenises the result again with special tokens, so
the beginning-of-text token stands there twice; the model knows no other input. Documents that
were retrieved go before the question: put them into the problem's prompt. Score = softmax over
the logits of " +" and " -", share of " +".

Header: Yun et al. 2025, arXiv:2506.11474; dmis-lab/llama-3.1-medprm-reward-v1.0.
"""

from __future__ import annotations

from prmkit.chat import Tokenizer, beginning, encode_text, single_token, turns
from prmkit.records import Problem, Step
from prmkit.scorers.families.base import Discriminative, Piece
from prmkit.scorers.families.heads import TokenRows
from prmkit.scorers.families.reading import first_of_two
from prmkit.scorers.families.wording import numbered

TAG = " ки"


def begin(problem: Problem, tokenizer: Tokenizer) -> list[int]:
    """Twice the beginning of text, the user's turn, and the question."""
    text = f"Question: {problem.text}\n\nExplanation:"
    return beginning(tokenizer) + turns(tokenizer).start + encode_text(tokenizer, text)


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
