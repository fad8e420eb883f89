"""The words between a search algorithm and what drives it.

An algorithm is a generator. It yields requests and is sent what came of them; it never calls a
model, so that one problem or many, one after the other or overlapping, are the driver's business.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

from prmkit.aggregate import Aggregation
from prmkit.errors import SearchError
from prmkit.ledger import seed_for
from prmkit.records import Semantics
from prmkit.search.tree import Cost, Node

T = TypeVar("T")


class Expand(NamedTuple):
    """Draw children.

    Attributes:
        nodes: open ones.
        counts: children of each.
        first: the number of the first child of each; by default one after those given out. Name
            it where searches that run side by side go on from the same node.
        whole: to the end of the solution, not of the step.
        temperature: other than the run's.
        score: whether the children are scored too, each as soon as it is there.
    """

    nodes: tuple[Node, ...]
    counts: tuple[int, ...]
    first: tuple[int, ...] | None = None
    whole: bool = False
    temperature: float | None = None
    score: bool = False


class Score(NamedTuple):
    """Score all steps up to some nodes."""

    nodes: tuple[Node, ...]


class Cut(NamedTuple):
    """A place inside of a node that holds several steps, to go on from.

    Attributes:
        node: drawn as a whole.
        n_steps: of its own steps, those that are kept; at least 1, and not all.
    """

    node: Node
    n_steps: int


class Join(NamedTuple):
    """Put what was written after some nodes behind others, too; nothing is drawn or scored.

    Attributes:
        nodes: open ones.
        rests: behind each: nodes that follow one another, blank ones left out.
    """

    nodes: tuple[Node, ...]
    rests: tuple[tuple[Node, ...], ...]


class Likelihood(NamedTuple):
    """How likely the policy writes texts, at the temperature of the run.

    Attributes:
        nodes: the ends of the texts; that a solution ends there counts, too.
        after: where each text begins: a node before it.
    """

    nodes: tuple[Node, ...]
    after: tuple[Node, ...]


class Abort(NamedTuple):
    """Give nodes up: nothing goes on from them. Nothing comes back."""

    nodes: tuple[Node, ...]


class Together(NamedTuple):
    """Run searches side by side, none waiting for another."""

    searches: tuple[Steps[Any], ...]


class Note(NamedTuple):
    """What an algorithm decided, for the trace; nothing comes back.

    Attributes:
        kind: such as ``keep`` or ``resample``.
        data: JSON.
    """

    kind: str
    data: Mapping[str, Any]


Request = Expand | Score | Cut | Join | Likelihood | Abort | Together | Note
Steps = Generator[Request, Any, T]


class Pool(NamedTuple):
    """What a search ends with.

    Attributes:
        nodes: the candidates, in order; the same one may be there several times.
        weights: of their votes, where the algorithm gives them.
        chosen: the one that the algorithm itself is for, where it has a say.
    """

    nodes: tuple[Node, ...]
    weights: tuple[float, ...] | None = None
    chosen: Node | None = None


Search = Steps[Pool]


def expand(
    nodes: Sequence[Node],
    n: int | Sequence[int],
    *,
    first: Sequence[int] | None = None,
    whole: bool = False,
    temperature: float | None = None,
    score: bool = False,
) -> Steps[list[list[Node]]]:
    """Draw children of nodes; see `Expand`.

    Returns:
        Of each node, its new children in order. One that could not be drawn has the finish
        ``error``.
    """
    counts = (n,) * len(nodes) if isinstance(n, int) else tuple(n)
    if len(counts) != len(nodes):
        raise ValueError(f"{len(counts)} counts for {len(nodes)} nodes; give one each")
    numbers = None if first is None else tuple(first)
    children: list[list[Node]] = yield Expand(
        tuple(nodes), counts, numbers, whole, temperature, score
    )
    return children


def score(nodes: Sequence[Node]) -> Steps[None]:
    """Have nodes scored; those that are, or that cannot be, stay as they are."""
    yield Score(tuple(nodes))


def cut(node: Node, n_steps: int) -> Steps[Node]:
    """An open node that holds the first steps of another; it is its sibling."""
    found: Node = yield Cut(node, n_steps)
    return found


def join(nodes: Sequence[Node], rests: Sequence[Sequence[Node]]) -> Steps[list[list[Node]]]:
    """Copies of nodes behind others; see `Join`."""
    found: list[list[Node]] = yield Join(tuple(nodes), tuple(map(tuple, rests)))
    return found


def log_likelihoods(nodes: Sequence[Node], after: Sequence[Node]) -> Steps[list[float]]:
    """Natural logarithms of how likely the policy writes texts; see `Likelihood`.

    Raises:
        SearchError: if the policy does not tell. Ask with no nodes to know that beforehand.
    """
    found: list[float] = yield Likelihood(tuple(nodes), tuple(after))
    return found


def abort(nodes: Sequence[Node]) -> Steps[None]:
    """Give nodes up."""
    yield Abort(tuple(nodes))


def together(searches: Sequence[Steps[T]]) -> Steps[list[T]]:
    """Run searches side by side; what each returned, in order."""
    found: list[T] = yield Together(tuple(searches))
    return found


def note(kind: str, **data: Any) -> Steps[None]:
    """Write a decision into the trace."""
    yield Note(kind, data)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What an algorithm may know of its run.

    Attributes:
        root: the beginning.
        seed: of the run.
        aggregation: of step scores to one number.
        semantics: what scores mean.
        spent: what was spent so far.
        answers: the classes of equal final answers of nodes; None where there is no answer.
        acts: whether a step is an action in an environment, and a whole rest one after the other.
        votes: whether solutions give answers at all.
    """

    root: Node
    seed: int
    aggregation: Aggregation
    semantics: Semantics
    spent: Callable[[], Cost]
    answers: Callable[[Sequence[Node]], list[int | None]]
    acts: bool = False
    votes: bool = True

    def value(self, node: Node) -> float:
        """How good the steps up to a node are; lower than any number where that is not known."""
        found = node.value(self.aggregation, self.semantics)
        return float("-inf") if found is None else found

    def rng(self, *parts: str | int) -> np.random.Generator:
        """A source of chance of its own for each purpose."""
        key = seed_for(self.seed, self.root.problem.id, *map(str, parts))
        return np.random.Generator(np.random.Philox(key=key))


def votes_count(scene: Scene) -> None:
    """Refuse to vote where there is nothing to vote for.

    Raises:
        SearchError: if solutions give no answers.
    """
    if not scene.votes:
        raise SearchError(
            "the algorithm votes on answers, and tasks of this environment are solved by deeds; "
            "choose by scores instead, with best-of-n or beam and a reward model (--model)"
        )


def usable(children: Sequence[Sequence[Node]]) -> list[Node]:
    """Of new children, those that can be gone on from, or end a solution, in order."""
    return [c for of_node in children for c in of_node if c.is_open or c.is_finished]


def best(scene: Scene, nodes: Sequence[Node]) -> Node | None:
    """The best of some whole solutions, the first of equal ones; None where there is none."""
    finished = [node for node in nodes if node.is_finished]
    return max(finished, key=scene.value, default=None)
