"""The tokenizer of the embedded world: byte-level, so it takes any text; its own words whole.

Every word of the world's sentences and every number up to 99 is one token, which keeps small
models small. The chat template is the ordinary one of a Hugging Face folder: a question is
``<|problem|>``, an answer ``<|solution|>`` … ``<|end|>``.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from prmkit.embedded.solutions import write_solution
from prmkit.embedded.world import problems

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, PROBLEM, SOLUTION, END = "<|pad|>", "<|problem|>", "<|solution|>", "<|end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "<|solution|>{{ message['content'] }}<|end|>"
    "{% else %}<|problem|>{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|solution|>{% endif %}"
)
_PIECES = r" ?\p{L}+| ?\p{N}{1,2}|\n| ?[^\s\p{L}\p{N}]+|\s+"


def _corpus() -> Iterator[str]:
    rng = random.Random(0)
    for split in ("train", "ood"):
        for problem in problems(split, 3000):
            yield problem.text
            yield "".join(write_solution(problem, rng))
    # Every number often enough to become one token.
    for _ in range(200):
        yield "".join(f" {n}" for n in range(100))


def build_tokenizer(vocabulary_size: int = 1024) -> PreTrainedTokenizerFast:
    """Train the tokenizer on the world's own sentences; the same bytes every time."""
    return tokenizer_of(_corpus(), _PIECES, vocabulary_size, 1024)


def tokenizer_of(
    texts: Iterable[str], pieces: str, vocabulary_size: int, context: int
) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer that is learnt from texts; it has the world's chat template.

    Args:
        texts: what merges are counted in.
        pieces: a pattern of what is merged at most.
        vocabulary_size: tokens at most.
        context: tokens that its models read at most.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[PAD, PROBLEM, SOLUTION, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[PROBLEM, SOLUTION],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=context,
    )
