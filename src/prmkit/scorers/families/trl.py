r"""TRL's PRMTrainer: a token classifier read at the separator behind each step.

The ids are those of training: the prompt, then each step and the separator, each tokenised on its
own, with no separator between prompt and first step. (TRL's documentation evaluates otherwise,
and its published figures carry that mismatch.) Score = softmax over two classes, class 1.

Header: TRL up to 1.13.0, trl.experimental.prm; HuggingFaceH4/Qwen2.5-Math-1.5B-Instruct-PRM-0.2,
HuggingFaceH4/Qwen2.5-Math-7B-Instruct-PRM-0.2, axolotl-ai-co/Qwen2.5-Math-PRM-7B (separator
``\n\n``), trl-lib/Qwen2-0.5B-Reward-Math-Sheperd (separator ``\n``).
"""

from __future__ import annotations

from functools import partial

from prmkit.chat import Tokenizer, encode_markup, encode_text
from prmkit.records import Problem, Step
from prmkit.scorers.families.base import Discriminative, Piece
from prmkit.scorers.families.heads import Linear
from prmkit.scorers.families.reading import second_of_two
from prmkit.scorers.families.wording import bare


def begin(problem: Problem, tokenizer: Tokenizer) -> list[int]:
    """The prompt after the beginning-of-text token, where the tokenizer has one."""
    start = getattr(tokenizer, "bos_token_id", None)
    return ([] if start is None else [start]) + encode_text(tokenizer, problem.text)


def step(step: Step, index: int, tokenizer: Tokenizer, separator: str) -> Piece:
    """A step and the separator, read at the separator's last token."""
    del index
    ids = encode_text(tokenizer, bare(step.text)) + encode_markup(tokenizer, separator)
    return Piece(ids, len(ids) - 1)


def _family(name: str, separator: str, about: str = "") -> Discriminative:
    return Discriminative(
        name=name,
        begin=begin,
        step=partial(step, separator=separator),
        read=second_of_two,
        head=Linear(2),
        semantics="correctness",
        about=about,
    )


BLANK_LINE = _family("trl", "\n\n")
LINE = _family(
    "trl_line", "\n", "TRL's PRMTrainer with its default separator of the time, one line end."
)
