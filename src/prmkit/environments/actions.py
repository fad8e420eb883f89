"""From what a policy wrote to the action that it means. Pure: text in, text out."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from prmkit.records import Trajectory

Extract = Callable[[str], str]
"""From the text of a step to the action in it; a text without one gives an empty action."""

_ACTION = re.compile(r"^[ \t]*[*_#]*[ \t]*action[ \t]*[*_]*[ \t]*:[ \t]*[*_]*[ \t]*", re.I | re.M)
_OBSERVATION = re.compile(r"^[ \t]*[*_#]*[ \t]*observation[ \t]*[*_]*[ \t]*:", re.I | re.M)
_WRAPPED = re.compile(r"\A(?:<tool_call>|```[a-zA-Z]*)\s*(.*?)\s*(?:</tool_call>|```)?\s*\Z", re.S)

LONGEST_CALL = 100_000
"""Characters of a tool call at most."""
STARTS = 8
"""Places in a text at which a call is looked for at most."""


def whole_text(text: str) -> str:
    """The whole text is the action."""
    return text.strip()


def action_of(text: str) -> str:
    r"""What stands after ``Action:``, or the whole text where no line begins with that.

    The last such line counts, but none after a line with ``Observation:``: there a policy goes on
    to invent what it would be answered. The action is the rest of the line, or the next line with
    words; a tool call may go over several lines.

    >>> action_of("Thought: the ball is to my left.\nAction: turn left")
    'turn left'
    >>> action_of("go forward")
    'go forward'
    """
    return parts_of(text).action


class Said(NamedTuple):
    """What a policy wrote in a turn, cut into pieces without the blanks around them.

    Attributes:
        thought: what comes before the action.
        action: see `action_of`.
        after: what comes after it, such as an observation that was invented.
    """

    thought: str
    action: str
    after: str


def parts_of(text: str) -> Said:
    r"""A turn's thought, its action, and what was written after that.

    >>> parts_of("It is to my left.\nAction: turn left\nObservation: a ball")
    Said(thought='It is to my left.', action='turn left', after='Observation: a ball')
    """
    invented = _OBSERVATION.search(text)
    end = invented.start() if invented else len(text)
    marks = list(_ACTION.finditer(text, 0, end))
    if not marks:
        return Said("", text[:end].strip(), text[end:].strip())
    thought, rest = text[: marks[-1].start()].strip(), text[marks[-1].end() : end].lstrip()
    action = rest.strip()
    if not action.startswith(("{", "[", "```", "<tool_call>")):
        action = rest.split("\n", 1)[0].strip()
    return Said(thought, action, (rest[len(action) :] + text[end:]).strip())


class Turn(NamedTuple):
    """What names a turn among those of all episodes: equal where the same was done after the same.

    A situation is the problem, the actions so far, and what they were answered. Thoughts do not
    count: the environment does not read them.

    Attributes:
        before: names the situation.
        done: names the situation with the action.
    """

    before: str
    done: str


def turns_of(trajectory: Trajectory) -> list[Turn]:
    """The names of an episode's turns."""
    found: list[Turn] = []
    so_far = hashlib.sha256(trajectory.problem.text.encode())

    def told(text: str) -> None:
        # With their lengths, so that no two different stories read alike.
        so_far.update(f"{len(text)}:{text}".encode())

    for step in trajectory.steps:
        before = so_far.hexdigest()
        told(action_of(step.text))
        found.append(Turn(before, so_far.hexdigest()))
        told(step.observation or "")
    return found


class Call(NamedTuple):
    """A call of a tool.

    Attributes:
        name: of the tool.
        arguments: by name.
    """

    name: str
    arguments: dict[str, Any]

    @property
    def text(self) -> str:
        """As JSON, in the manner of `read_call`."""
        return json.dumps({"name": self.name, "arguments": self.arguments}, ensure_ascii=False)


def read_call(text: str) -> Call | str:
    """A tool call in a text, or what is wrong with it.

    Known are ``{"name": …, "arguments": {…}}``, arguments as JSON text (as OpenAI sends them), the
    call inside of ``{"type": "function", "function": …}`` or of a list ``tool_calls`` with one
    entry, and each of these between ``<tool_call>`` tags, in a code fence, or after other words.

    >>> read_call('{"name": "look", "arguments": {"at": "door"}}')
    Call(name='look', arguments={'at': 'door'})
    """
    if len(text) > LONGEST_CALL:
        return f"the call has {len(text)} characters; at most {LONGEST_CALL} are read"
    wrapped = _WRAPPED.match(text.strip())
    found, why = _decoded(wrapped[1] if wrapped else text)
    if found is None:
        return why
    for key in ("tool_calls", "function_call", "function"):
        inner = found.get(key)
        if isinstance(inner, list):
            if len(inner) != 1:
                return f"{len(inner)} calls at once; make one"
            inner = inner[0]
        if isinstance(inner, dict):
            found = inner
    name, arguments = found.get("name"), found.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = _strict(arguments or "{}")
        except (ValueError, RecursionError):
            return "the arguments are a text that is no JSON"
    if not isinstance(name, str) or not name:
        return "the call has no 'name' of a tool"
    if not isinstance(arguments, dict):
        return f"'arguments' is {_kind(arguments)}; it must be an object"
    return Call(name, arguments)


def _strict(text: str) -> Any:
    return json.loads(text, parse_constant=_no_number)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _decoded(text: str) -> tuple[dict[str, Any] | None, str]:
    """The first JSON object in a text that may be a call, or None and why."""
    decoder = json.JSONDecoder(parse_constant=_no_number)
    why = "no JSON object was found"
    at = text.find("{")
    for _ in range(STARTS):
        if at < 0:
            break
        try:
            found, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            why = f"this is no JSON: {type(error).__name__} at character {at}"
            if isinstance(error, json.JSONDecodeError):
                why = f"this is no JSON: {error.msg} at character {error.pos}"
            end = at + 1
        else:
            # A number too large for JSON's readers elsewhere, or half of a surrogate pair.
            if not {"name", "tool_calls", "function", "function_call"}.isdisjoint(found):
                try:
                    json.dumps(found, allow_nan=False, ensure_ascii=False).encode()
                except ValueError:
                    return None, "the call holds what no text can: a number or a character"
                return found, ""
            why = "the call has no 'name' of a tool"
        at = text.find("{", end)
    return None, why


def check_arguments(call: Call, tools: Sequence[Mapping[str, Any]]) -> str | None:
    """What is wrong with a call by the schemas of the tools; None where nothing is.

    Args:
        call: what was called.
        tools: as OpenAI describes them: ``{"type": "function", "function": {"name": …,
            "parameters": {"type": "object", "properties": …, "required": …}}}``.
    """
    by_name = {tool["function"]["name"]: tool["function"] for tool in tools}
    if call.name not in by_name:
        return f"there is no tool {call.name!r:.60}; known: {', '.join(by_name)}"
    parameters = by_name[call.name].get("parameters", {})
    known: Mapping[str, Any] = parameters.get("properties", {})
    for name in parameters.get("required", ()):
        if name not in call.arguments:
            return f"{call.name} needs the argument {name!r}"
    for name, value in call.arguments.items():
        if name not in known:
            takes = ", ".join(known) or "none"
            return f"{call.name} takes no argument {name!r:.60}; it takes: {takes}"
        wanted = known[name].get("type")
        if wanted is not None and not _fits(value, wanted):
            return f"{name!r} of {call.name} is {_kind(value)}; it must be of type {wanted}"
    return None


_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def _fits(value: Any, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted == "boolean"
    return isinstance(value, _TYPES.get(wanted, (object,)))


def _kind(value: Any) -> str:
    return next((name for name in ("boolean", *_TYPES) if _fits(value, name)), type(value).__name__)
