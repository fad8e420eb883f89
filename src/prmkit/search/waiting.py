"""What a run waits for: the requests of an algorithm that are under way, and what they take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from prmkit.search.requests import Steps
from prmkit.search.speaking import Draw, Passage
from prmkit.search.tree import Node


@dataclass(eq=False)
class Thread:
    """A generator under way.

    Attributes:
        steps: the generator.
        parent: whose `Together` it belongs to, and its place there.
        replies: of the searches that it waits for.
        waits: how many of them.
    """

    steps: Steps[Any]
    parent: tuple[Thread, int] | None = None
    replies: list[Any] = field(default_factory=list)
    waits: int = 0


@dataclass(eq=False)
class Expansion:
    """An `Expand` under way: the children so far, by node, and how many are missing."""

    thread: Thread
    score: bool
    children: list[list[Node | None]]
    missing: int


@dataclass(eq=False)
class Scoring:
    """A `Score` under way, or the scoring of an expansion's children."""

    thread: Thread
    reply: Any
    missing: int


class Weighing(NamedTuple):
    """A `Likelihood` under way."""

    thread: Thread
    passages: tuple[Passage, ...]


class Wish(NamedTuple):
    """One child of an expansion that is to be drawn.

    Attributes:
        expansion: it belongs to.
        place: in it.
        node: to be gone on from.
        number: of the child.
        whole: to the end of the solution.
        temperature: other than the run's.
        serial: how many wishes of the run came before it; those that go on with a piece keep it.
        blanks: blank pieces that were drawn before it.
    """

    expansion: Expansion
    place: tuple[int, int]
    node: Node
    number: int
    whole: bool
    temperature: float | None
    serial: int
    blanks: int = 0


class Taken(NamedTuple):
    """What a run wants done.

    Attributes:
        draws: children to draw.
        nodes: to score.
        passages: whose likelihood is to be told.
    """

    draws: list[Draw]
    nodes: list[Node]
    passages: list[Passage]
