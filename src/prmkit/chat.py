"""Conversations to token ids, piece by piece, so that text is never taken for markup.

A chat template is markup around untrusted text. Here the template is rendered with placeholders,
cut at them, and each piece is tokenised on its own: template pieces with special tokens, text
pieces without. So a ``<|end|>`` inside a question stays seven ordinary characters.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Protocol

from prmkit.errors import CheckpointError
from prmkit.records import Message, Problem


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that prmkit uses."""

    @property
    def chat_template(self) -> Any:
        """The Jinja template of a conversation, or None."""

    def __call__(self, text: str, **settings: Any) -> Any:
        """Token ids of a text."""

    def decode(self, token_ids: Any, **settings: Any) -> Any:
        """The text of token ids."""

    def apply_chat_template(self, conversation: Any, **settings: Any) -> Any:
        """A conversation as one text."""


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of untrusted text: no special token comes out, whatever the text spells."""
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return list(ids)


def encode_markup(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a piece of a template: special tokens are read as such."""
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def messages_of(problem: Problem) -> tuple[Message, ...]:
    """The question as a conversation."""
    if problem.messages is not None:
        return problem.messages
    return (Message(role="user", content=problem.text),)


def encode_question(tokenizer: Tokenizer, problem: Problem) -> list[int]:
    """Token ids of a question up to where the answer begins.

    With a chat template: the template with its generation prompt. Without one: the beginning of
    sequence token, where the tokenizer has one, then the question and a line end.

    Raises:
        CheckpointError: if the template drops or repeats a message.
    """
    if tokenizer.chat_template is None:
        start = getattr(tokenizer, "bos_token_id", None)
        return ([] if start is None else [start]) + encode_text(tokenizer, problem.text + "\n")
    return _encode_template(tokenizer, messages_of(problem))


def _encode_template(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    # Letters and digits only, so that no template trims or escapes it; random, so that no text
    # can contain it.
    marks = [f"PLACE{secrets.token_hex(12)}" for _ in messages]
    conversation = [
        {"role": message.role, "content": mark}
        for message, mark in zip(messages, marks, strict=True)
    ]
    rest = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
    ids: list[int] = []
    for mark, message in zip(marks, messages, strict=True):
        if rest.count(mark) != 1:
            raise CheckpointError(
                f"the chat template shows the {message.role!r} message {rest.count(mark)} times; "
                "prmkit needs each message exactly once. Give the question as one user message, "
                "or mend the template in the tokenizer's folder"
            )
        before, rest = rest.split(mark)
        ids += encode_markup(tokenizer, before) + encode_text(tokenizer, message.content)
    return ids + encode_markup(tokenizer, rest)
