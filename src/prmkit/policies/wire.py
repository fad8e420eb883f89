"""What is sent to an OpenAI-compatible server, and how its answers are read.

Three routes: ``/v1/completions``, ``/v1/chat/completions`` and llama.cpp's own ``/completion``.
Which one, and with which fields, is for `prmkit.policies.probe` to find out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from prmkit.chat import (
    Tokenizer,
    beginning,
    encode_markup,
    encode_question,
    encode_text,
    messages_of,
    question_text,
    spells,
)
from prmkit.endpoint import FaultyAnswer
from prmkit.errors import PolicyError
from prmkit.policies.base import Completion, CompletionFinish
from prmkit.records import Problem

Route = Literal["/v1/completions", "/completion", "/v1/chat/completions"]
Continuation = Literal["token_ids", "text", "continue_final_message", "prefill", "prefix", "none"]

CHAT_FLAGS: dict[Continuation, dict[str, Any]] = {
    "continue_final_message": {"continue_final_message": True, "add_generation_prompt": False},
    "prefill": {},
    "prefix": {},
    "none": {},
}
"""Fields beside the messages by which a chat server is asked to go on with the last one."""

STOP_FIELDS = ("stop_reason", "matched_stop", "stopping_word")
"""Where servers say which stop text ended a text: vLLM, SGLang, llama.cpp."""

ID_FIELDS = ("token_ids", "tokens")
"""Where servers show the tokens that they drew: vLLM, llama.cpp."""

FINISHES = {"stop": "stop", "eos": "stop", "eos_token": "stop", "stop_sequence": "stop"} | {
    "word": "stop",
    "length": "length",
    "limit": "length",
}


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """What a server can do, as far as drawing completions needs it.

    Attributes:
        model: the name under which it serves the model.
        server: what it says of itself.
        context: tokens of a prompt and its completion at most, where it tells.
        route: where requests go.
        continuation: how a partial answer is continued: by ``token_ids`` or ``text`` on a route
            for raw prompts; on the chat route by the field ``continue_final_message``, by its
            habit to continue a last message of the assistant (``prefill``) or by a field of that
            message (``prefix``); or not at all (``none``).
        server_begins: it puts the tokenizer's beginning before a text prompt by itself.
        fields: sent with every request.
        limit: the field that limits the tokens.
        keeps_stop: a stop text stays at the end of the text.
        tells_stop: it says which stop text ended the text.
        usage: it counts tokens.
        samples: temperature has an effect.
        seed: the same seed gives the same text, whatever else is under way.
        n: one request may ask for several completions.
        n_seeds: and those are what single requests with seeds counted up would give.
        logprobs: log-probabilities of tokens are to be had.
        cached_tokens: it says how many tokens of a prompt were found in its prefix cache.
        how: how each of these was found out.
    """

    model: str
    server: str = "unknown"
    context: int | None = None
    route: Route = "/v1/chat/completions"
    continuation: Continuation = "none"
    server_begins: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    limit: str = "max_tokens"
    keeps_stop: bool = False
    tells_stop: bool = False
    usage: bool = False
    samples: bool = False
    seed: bool = False
    n: bool = False
    n_seeds: bool = False
    logprobs: bool = False
    cached_tokens: bool = False
    how: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> str:
        """One line for each capability, with how it was found out."""
        found = {k: v for k, v in asdict(self).items() if k != "how"}
        return "\n".join(
            f"{name}: {value}" + (f" ({self.how[name]})" if name in self.how else "")
            for name, value in found.items()
        )


class Prompt(NamedTuple):
    """A question and the answer so far, as one route wants it.

    Attributes:
        ids: token ids, where there is a tokenizer here.
        text: the same as text.
        messages: the conversation, its last message the answer so far where there is one.
        partial: whether there is an answer so far.
    """

    ids: list[int] | None
    text: str | None
    messages: list[dict[str, Any]]
    partial: bool


class Choice(NamedTuple):
    """One completion as a server gives it.

    Attributes:
        text: new text.
        finish: ``stop`` or ``length``.
        matched: the stop text that ended it, where the server says so.
        ids: drawn, where the server shows them; some show the end token, too.
    """

    text: str
    finish: str
    matched: str | None
    ids: tuple[int, ...] | None


class Answer(NamedTuple):
    """What a server answers.

    Attributes:
        choices: the completions.
        prompt_tokens: read.
        completion_tokens: drawn, in all choices together.
        cached_tokens: of the prompt, found in the prefix cache.
    """

    choices: list[Choice]
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None


def prompt_of(
    can: Capabilities, tokenizer: Tokenizer | None, problem: Problem, so_far: Sequence[str]
) -> Prompt:
    """A prompt from a question and the pieces of the answer so far.

    The ids are those of `prmkit.policies.hf.HFPolicy`: piece by piece, text never as markup.

    Raises:
        PolicyError: if the prompt goes as text, and a special token is spelled in it.
    """
    answer = "".join(so_far)
    messages: list[dict[str, Any]] = [
        {"role": message.role, "content": message.content} for message in messages_of(problem)
    ]
    if answer:
        last: dict[str, Any] = {"role": "assistant", "content": answer}
        messages.append(last | ({"prefix": True} if can.continuation == "prefix" else {}))
    if tokenizer is None:
        return Prompt(None, None, messages, bool(answer))
    ids = encode_question(tokenizer, problem)
    for piece in so_far:
        ids += encode_text(tokenizer, piece)
    text = None
    if can.continuation == "text":
        text = question_text(tokenizer, problem) + answer
        whole = encode_markup(tokenizer, text)
        if _specials(tokenizer, whole) != _specials(tokenizer, ids):
            raise PolicyError(
                f"problem {problem.id!r} or its answer spells a special token of {can.model!r}, "
                "which a server that takes text reads as markup; a server that takes token ids "
                "(vLLM, SGLang, llama.cpp) reads it as text"
            )
        ids = whole
        if can.server_begins:
            ids, text = _without_beginning(tokenizer, ids, text)
    return Prompt(ids, text, messages, bool(answer))


def _specials(tokenizer: Tokenizer, ids: list[int]) -> Counter[int]:
    known = set(getattr(tokenizer, "added_tokens_decoder", {}))
    return Counter(token for token in ids if token in known)


def _without_beginning(tokenizer: Tokenizer, ids: list[int], text: str) -> tuple[list[int], str]:
    """The ids that the server will read, and the text without what it puts before by itself."""
    start = beginning(tokenizer)
    shown = str(tokenizer.decode(start)) if start else ""
    if start and ids[: len(start)] == start and text.startswith(shown):
        return ids, text[len(shown) :]
    return start + ids, text


def body_of(
    can: Capabilities,
    prompt: Prompt,
    *,
    max_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    stop: Sequence[str] = (),
    seed: int | None = None,
    n: int = 1,
) -> dict[str, Any]:
    """The JSON object of a request."""
    body: dict[str, Any] = {"model": can.model, can.limit: max_tokens, **can.fields}
    body |= {"temperature": temperature, "top_p": top_p}
    if can.route == "/v1/chat/completions":
        body["messages"] = prompt.messages
        if prompt.partial:
            body |= CHAT_FLAGS[can.continuation]
    else:
        body["prompt"] = prompt.text if can.continuation == "text" else prompt.ids
    if stop:
        body["stop"] = list(stop)
    if seed is not None:
        body["seed"] = seed
    if n > 1:
        body["n"] = n
    return body


def read_answer(can: Capabilities, answer: Mapping[str, Any], n: int | None = 1) -> Answer:
    """An answer, checked.

    Args:
        can: the route that gave it.
        answer: the JSON object.
        n: the completions that were asked for; None takes what comes.

    Raises:
        FaultyAnswer: if it is not what this route answers.
    """
    if can.route == "/completion":
        timings = answer.get("timings")
        cached = timings.get("cache_n") if isinstance(timings, dict) else None
        return Answer(
            [_choice(answer.get("content"), answer.get("stop_type"), answer)],
            _count(answer.get("tokens_evaluated"), "tokens_evaluated"),
            _count(answer.get("tokens_predicted"), "tokens_predicted"),
            _count(cached, "cache_n"),
        )
    choices = answer.get("choices")
    if not isinstance(choices, list) or not all(isinstance(c, dict) for c in choices):
        raise FaultyAnswer(f"the answer has no list of choices: {str(answer)[:200]}")
    if not choices or (n is not None and len(choices) != n):
        raise FaultyAnswer(f"{len(choices)} choices came where {n} were asked for")
    indices = [choice.get("index", at) for at, choice in enumerate(choices)]
    if not all(isinstance(i, int) for i in indices) or sorted(indices) != [*range(len(choices))]:
        raise FaultyAnswer(f"the choices are numbered {indices}")
    choices = [choice for _, choice in sorted(zip(indices, choices, strict=True), key=_first)]
    usage = answer.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Answer(
        [
            _choice(
                _said(choice) if can.route == "/v1/chat/completions" else choice.get("text"),
                choice.get("finish_reason"),
                choice,
            )
            for choice in choices
        ],
        _count(usage.get("prompt_tokens"), "prompt_tokens"),
        _count(usage.get("completion_tokens"), "completion_tokens"),
        _count(cached, "cached_tokens"),
    )


def _first(pair: tuple[int, Any]) -> int:
    return pair[0]


def _said(choice: Mapping[str, Any]) -> Any:
    message = choice.get("message")
    if not isinstance(message, dict):
        raise FaultyAnswer(f"a choice has no message: {str(choice)[:200]}")
    for elsewhere in ("reasoning_content", "reasoning", "tool_calls", "refusal"):
        if message.get(elsewhere):
            raise FaultyAnswer(
                f"a part of the text is in {elsewhere!r}, so the rest is not what the model "
                "wrote; start the server without a parser for it"
            )
    # A model that ends at once says nothing.
    return "" if message.get("content") is None else message["content"]


def _choice(text: Any, finish: Any, told: Mapping[str, Any]) -> Choice:
    if not isinstance(text, str):
        raise FaultyAnswer(f"a text is {text!r:.100}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise FaultyAnswer("a text holds half of a surrogate pair") from None
    if not isinstance(finish, str) or finish not in FINISHES:
        raise FaultyAnswer(f"a completion ended by {finish!r:.100}")
    matched = next((told[k] for k in STOP_FIELDS if isinstance(told.get(k), str) and told[k]), None)
    ids = next((told[k] for k in ID_FIELDS if isinstance(told.get(k), list) and told[k]), None)
    if ids is not None and not all(type(token) is int for token in ids):
        raise FaultyAnswer(f"the token ids are {ids!r:.100}")
    return Choice(text, FINISHES[finish], matched, None if ids is None else tuple(ids))


def _count(value: Any, name: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise FaultyAnswer(f"{name} is {value!r:.100}")
    return value


def prompt_of_ids(ids: Sequence[int]) -> Prompt:
    """A prompt of token ids, for a server that takes them."""
    return Prompt(list(ids), None, [], True)


def spelled_by(
    tokenizer: Tokenizer, ids: Sequence[int] | None, completion: Completion
) -> tuple[int, ...] | None:
    """The token ids of a completion's text, of those that a server shows; None if not exactly."""
    if ids is None:
        return None
    # The end token is no part of the text.
    cuts = (ids, ids[:-1]) if completion.finish == "eos" else (ids,)
    return next((tuple(cut) for cut in cuts if spells(tokenizer, cut, completion.text)), None)


def completion_of(
    can: Capabilities, choice: Choice, stop: Sequence[str], n_tokens: int
) -> Completion:
    """A completion: ended by a stop text, by the limit or by the model.

    A text that holds a stop text ends at the first one, whatever the server says; so servers that
    keep them, or show a little more, and servers that cut them off give the same.
    """
    text = choice.text
    if choice.matched in stop and not can.keeps_stop:
        text += choice.matched or ""
    ends = [at + len(item) for item in stop if (at := text.find(item)) >= 0]
    if ends:
        return Completion(text[: min(ends)], "stop", n_tokens)
    finish: CompletionFinish = "length" if choice.finish == "length" else "eos"
    return Completion(text, finish, n_tokens)
