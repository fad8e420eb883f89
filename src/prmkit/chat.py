"""Conversations to token ids, piece by piece, so that text is never taken for markup.

A chat template is markup around untrusted text. Here the template is rendered with placeholders,
cut at them, and each piece is tokenised on its own: template pieces with special tokens, text
pieces without. So a ``<|end|>`` inside a question stays seven ordinary characters.
"""

from __future__ import annotations

import secrets
import threading
import weakref
from array import array
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from prmkit.errors import CheckpointError, InvalidRecord
from prmkit.records import Message, Problem, Trajectory


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that prmkit uses."""

    @property
    def chat_template(self) -> Any:
        """The Jinja template of a conversation, or None."""

    def __call__(self, text: str, **settings: Any) -> Any:
        """Token ids of a text."""

    def __len__(self) -> int:
        """How many tokens it knows."""

    def decode(self, token_ids: Any, **settings: Any) -> Any:
        """The text of token ids."""

    def apply_chat_template(self, conversation: Any, **settings: Any) -> Any:
        """A conversation as one text."""


_MEMORY: weakref.WeakKeyDictionary[Any, dict[Any, Any]] = weakref.WeakKeyDictionary()

T = TypeVar("T")


def _remembered(tokenizer: Tokenizer, key: Hashable, make: Callable[[], T]) -> T:
    """What depends on the tokenizer alone, made once."""
    # One that watches another's text tokenises markup as the other does.
    memory = _MEMORY.setdefault(getattr(tokenizer, "watched", tokenizer), {})
    key = (key, tokenizer.chat_template)
    if key not in memory:
        memory[key] = make()
    found: T = memory[key]
    return found


_ENCODING = threading.RLock()
"""A fast tokenizer remembers how special tokens are to be read from one call to the next, so two
threads that want them read differently must take turns. One that watches another comes twice."""


class _Recent:
    """Token ids of what was tokenised last: turns and beams read the same texts over and over."""

    most = 2**21
    """Tokens that are kept; with their texts about 20 MB."""
    each = 100
    """Tokens for which the place of an entry stands, so that many short texts are bounded, too."""

    def __init__(self) -> None:
        self._ids: OrderedDict[Hashable, array[int]] = OrderedDict()
        self._n = 0

    def ids(self, key: Hashable, make: Callable[[], list[int]]) -> list[int]:
        """Those that are kept, or those that are made."""
        found = self._ids.get(key)
        if found is not None:
            self._ids.move_to_end(key)
            return found.tolist()
        ids = make()
        self._ids[key] = array("i", ids)
        self._n += len(ids) + self.each
        while self._n > self.most:
            self._n -= len(self._ids.popitem(last=False)[1]) + self.each
        return ids


_RECENT: weakref.WeakKeyDictionary[Any, _Recent] = weakref.WeakKeyDictionary()


def _encode(tokenizer: Tokenizer, text: str, **settings: bool) -> list[int]:
    def read(by: Tokenizer) -> list[int]:
        return list(by(text, add_special_tokens=False, verbose=False, **settings)["input_ids"])

    watched = getattr(tokenizer, "watched", None)
    with _ENCODING:
        if watched is not None and settings:
            # It is to see each untrusted text; what it watches comes here again.
            return read(tokenizer)
        own = tokenizer if watched is None else watched
        if (recent := _RECENT.get(own)) is None:
            recent = _RECENT[own] = _Recent()
        # One to which tokens were added reads otherwise.
        return recent.ids((text, *settings, len(own)), lambda: read(own))


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of untrusted text: no special token comes out, whatever the text spells."""
    return _encode(tokenizer, text, split_special_tokens=True)


def encode_markup(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of a piece of a template: special tokens are read as such."""
    return _encode(tokenizer, text)


def encode_inside(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids of untrusted text as they are inside of a longer text, after a line end.

    Tokenizers of Llama's kind put a space before whatever they are given; inside of a text there
    is none.
    """

    def adds_space() -> bool:
        return encode_text(tokenizer, "a") != after_line_end(tokenizer, "a")

    if text and _remembered(tokenizer, "adds_space", adds_space):
        return after_line_end(tokenizer, text)
    return encode_text(tokenizer, text)


def after_line_end(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids that untrusted text has behind a line end."""
    before = encode_text(tokenizer, "\n")
    ids = encode_text(tokenizer, "\n" + text)
    # A tokenizer that merges the line end with what follows adds no space: see the caller.
    return ids[len(before) :] if ids[: len(before)] == before else encode_text(tokenizer, text)


def spells(tokenizer: Tokenizer, ids: Sequence[int], text: str) -> bool:
    """Whether token ids are a text: all of it and nothing else, no special token among it."""
    found = tokenizer.decode(
        list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    return bool(found == text)


def beginning(tokenizer: Tokenizer) -> list[int]:
    """The ids that a tokenizer puts before every text by itself, such as its `<s>`."""
    return _remembered(tokenizer, "beginning", lambda: list(tokenizer("")["input_ids"]))


def single_token(tokenizer: Tokenizer, text: str) -> int:
    """The id of a text that must be one token: a special token, or a word inside of a text.

    Raises:
        CheckpointError: if the tokenizer makes several tokens of it.
    """
    return _remembered(tokenizer, ("token", text), lambda: _single_token(tokenizer, text))


def _single_token(tokenizer: Tokenizer, text: str) -> int:
    special = encode_markup(tokenizer, text)
    if len(special) == 1 and tokenizer.decode(special) == text:
        return special[0]
    ids = encode_inside(tokenizer, text)
    if len(ids) != 1:
        raise CheckpointError(
            f"{text!r} must be one token, and this tokenizer makes {len(ids)} of it: {ids[:8]}. "
            "It is not the tokenizer that this family of models was trained with"
        )
    return ids[0]


class Turns(NamedTuple):
    """The markup of a conversation between a user and an assistant.

    Attributes:
        start: token ids before the first user message.
        to_assistant: from the end of a user message to the assistant's reply.
        to_user: from the end of a reply to the next user message.
        end: after the last reply.
    """

    start: list[int]
    to_assistant: list[int]
    to_user: list[int]
    end: list[int]


def turns(tokenizer: Tokenizer, system: str | None = None) -> Turns:
    """The markup of a tokenizer's chat template, whatever the messages say.

    Args:
        tokenizer: with a chat template.
        system: a system message; None leaves it to the template, which may bring its own.

    Raises:
        CheckpointError: if there is no template, or its markup depends on the turn.
    """
    return _remembered(tokenizer, ("turns", system), lambda: _turns(tokenizer, system))


def _turns(tokenizer: Tokenizer, system: str | None) -> Turns:
    if tokenizer.chat_template is None:
        raise CheckpointError(
            "the tokenizer has no chat template, which this family's conversations need"
        )
    marks = [f"PLACE{secrets.token_hex(12)}" for _ in range(4)]
    roles = ("user", "assistant", "user", "assistant")
    conversation = [
        {"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)
    ]
    if system is not None:
        conversation.insert(0, {"role": "system", "content": system})
    rest = _templated(tokenizer, conversation)
    between: list[str] = []
    for mark in marks:
        if rest.count(mark) != 1:
            raise CheckpointError(
                f"the chat template shows a message {rest.count(mark)} times; prmkit needs each "
                "exactly once"
            )
        before, rest = rest.split(mark)
        between.append(before)
    start, first, to_user, second = between
    if first != second:
        raise CheckpointError(
            f"the chat template goes from user to assistant by {first!r} and later by {second!r}; "
            "a step's ids would depend on its turn"
        )
    return Turns(*(encode_markup(tokenizer, text) for text in (start, first, to_user, rest)))


def messages_of(problem: Problem) -> tuple[Message, ...]:
    """The question as a conversation."""
    if problem.messages is not None:
        return problem.messages
    return (Message(role="user", content=problem.text),)


def as_conversation(prefix: Trajectory) -> tuple[Problem, list[str]]:
    """What was said before an answer goes on, and the pieces of that answer so far.

    Where an environment answered, the policy's turn was over: its steps up to there are a message
    of the assistant, the observation is one of the user, and both belong to the question. Without
    observations the question is the problem as it is, and all steps are pieces of the answer.
    """
    pieces: list[str] = []
    turns: list[Message] = []
    for step in prefix.steps:
        pieces.append((prefix.separator if pieces else "") + step.text)
        if step.observation is not None:
            turns.append(Message(role="assistant", content="".join(pieces)))
            turns.append(Message(role="user", content=step.observation))
            pieces = []
    if not turns:
        return prefix.problem, pieces
    messages = (*messages_of(prefix.problem), *turns)
    return prefix.problem.model_copy(update={"prompt": None, "messages": messages}), pieces


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


def question_text(tokenizer: Tokenizer, problem: Problem) -> str:
    """What `encode_question` encodes, as one text: for servers that take text alone.

    There, special tokens that a message spells are read as such; `encode_question` shows none.

    Raises:
        CheckpointError: if the template drops or repeats a message.
    """
    if tokenizer.chat_template is None:
        return (getattr(tokenizer, "bos_token", None) or "") + problem.text + "\n"
    messages = messages_of(problem)
    texts = _template_texts(tokenizer, tuple(message.role for message in messages))
    return texts[0] + "".join(
        message.content + after for message, after in zip(messages, texts[1:], strict=True)
    )


def _encode_template(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    roles = tuple(message.role for message in messages)
    pieces = _remembered(tokenizer, ("template", roles), lambda: _template_pieces(tokenizer, roles))
    ids = list(pieces[0])
    for message, after in zip(messages, pieces[1:], strict=True):
        ids += encode_text(tokenizer, message.content) + after
    return ids


def _templated(tokenizer: Tokenizer, conversation: list[dict[str, str]], **settings: Any) -> str:
    try:
        text: str = tokenizer.apply_chat_template(conversation, tokenize=False, **settings)
    except Exception as error:
        # A template is a program of the checkpoint's makers; what it raises is theirs to say.
        roles = ", ".join(message["role"] for message in conversation) or "no message"
        raise InvalidRecord(
            f"the chat template cannot be applied to a conversation of {roles}: {error}"
        ) from None
    return text


def _template_pieces(tokenizer: Tokenizer, roles: Sequence[str]) -> list[list[int]]:
    """Token ids of the markup around messages of these roles."""
    return [encode_markup(tokenizer, text) for text in _template_texts(tokenizer, roles)]


def _template_texts(tokenizer: Tokenizer, roles: Sequence[str]) -> list[str]:
    """The markup before, between and after messages of these roles, up to the next answer."""
    # Letters and digits only, so that no template trims or escapes it; random, so that no text
    # can contain it.
    marks = [f"PLACE{secrets.token_hex(12)}" for _ in roles]
    conversation = [
        {"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)
    ]
    rest = _templated(tokenizer, conversation, add_generation_prompt=True)
    pieces: list[str] = []
    for mark, role in zip(marks, roles, strict=True):
        if rest.count(mark) != 1:
            raise CheckpointError(
                f"the chat template shows the {role!r} message {rest.count(mark)} times; "
                "prmkit needs each message exactly once. Give the question as one user message, "
                "or mend the template in the tokenizer's folder"
            )
        before, rest = rest.split(mark)
        pieces.append(before)
    return [*pieces, rest]
