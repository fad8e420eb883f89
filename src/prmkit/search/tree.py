"""The tree of a search: what was written after what, what it scored, and what it cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from prmkit.aggregate import Aggregation, aggregate_scores
from prmkit.environments.rollout import SEPARATOR
from prmkit.records import Finish, Problem, Semantics, Step, StepScores, Trajectory, Unscored

FINISHED: tuple[Finish, ...] = ("eos", "answer")
"""How a whole solution ends. One that was cut is none, whatever it says."""


class Cost(NamedTuple):
    """What was spent.

    Attributes:
        completions: pieces of text that a policy drew.
        policy_tokens: drawn.
        prompt_tokens: that the policy read, as a server bills them.
        cached_tokens: of those, found in a cache.
        scorings: prefixes that a scorer scored.
        scorer_tokens: that the scorer read: new ones alone, where it goes on from prefixes.
        readings: texts that the policy read to tell how likely it is to write them.
        env_steps: actions that were done in an environment.
        replayed: those that were done again there, just to come back to where a node is.
    """

    completions: int = 0
    policy_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    scorings: int = 0
    scorer_tokens: int = 0
    readings: int = 0
    env_steps: int = 0
    replayed: int = 0

    def plus(self, other: Cost) -> Cost:
        """Both together."""
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))

    def minus(self, other: Cost) -> Cost:
        """This without a part of it."""
        return Cost(*(a - b for a, b in zip(self, other, strict=True)))

    @property
    def tokens(self) -> int:
        """Policy tokens and scorer tokens."""
        return self.policy_tokens + self.scorer_tokens

    @property
    def calls(self) -> int:
        """Completions, scorings and readings."""
        return self.completions + self.scorings + self.readings

    @property
    def steps_paid(self) -> int:
        """All that was done in an environment."""
        return self.env_steps + self.replayed


NOTHING = Cost()


class Node:
    """The end of a prefix: one step after its parent, or several where a whole rest was drawn.

    Attributes:
        parent: what it continues; None at the root.
        number: which of its parent's children it is.
        path: the numbers from the root to here.
        text: what was written here.
        steps: the same as steps.
        observation: what an environment answered to its step, where it is an action.
        ids: its tokens, where they are known.
        finish: how it ended; ``open`` can be gone on from.
        error: why it could not be drawn.
        scores: of all steps from the root's problem to here; None where they are not scored.
        unscored: why the scorer gave none.
        cost: of drawing and scoring it.
        n_children: child numbers that were given out.
        state: the scorer's, to go on from.
        lead: blank text that begins the next step: a policy may stop before it says anything.
        of: what it is a copy of; None where it was drawn.
    """

    __slots__ = (
        "children",
        "cost",
        "error",
        "finish",
        "ids",
        "lead",
        "n_children",
        "n_steps",
        "number",
        "observation",
        "of",
        "parent",
        "path",
        "problem",
        "scores",
        "state",
        "steps",
        "text",
        "unscored",
    )

    def __init__(
        self,
        problem: Problem,
        parent: Node | None = None,
        number: int = 0,
        *,
        text: str = "",
        steps: tuple[str, ...] = (),
        ids: tuple[int, ...] | None = None,
        finish: Finish = "open",
        error: str | None = None,
        cost: Cost = NOTHING,
        observation: str | None = None,
    ):
        self.problem, self.parent, self.number = problem, parent, number
        self.path: tuple[int, ...] = (*parent.path, number) if parent else ()
        self.text, self.steps, self.ids = text, steps, ids
        self.observation = observation
        self.lead = ""
        self.of: Node | None = None
        self.finish: Finish = finish
        self.error = error
        self.cost = cost
        self.n_steps: int = len(steps) + (parent.n_steps if parent else 0)
        self.scores: tuple[float, ...] | None = None
        self.unscored: str | None = None
        self.children: list[Node] = []
        self.n_children = 0
        self.state: Any = None
        if parent is not None:
            parent.children.append(self)

    @property
    def is_open(self) -> bool:
        """Whether it can be gone on from."""
        return self.finish == "open"

    @property
    def is_finished(self) -> bool:
        """Whether it ends a whole solution."""
        return self.finish in FINISHED

    @property
    def is_drawn_solution(self) -> bool:
        """Whether it ends a whole solution, and is no copy of another end."""
        return self.is_finished and self.of is None

    def line(self) -> list[Node]:
        """From the root to here."""
        node: Node | None = self
        found = []
        while node is not None:
            found.append(node)
            node = node.parent
        return found[::-1]

    def walk(self) -> Iterator[Node]:
        """This node and all below it, parents first, children by their numbers."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += sorted(node.children, key=lambda child: -child.number)

    def trajectory(self, generator: str | None = None) -> Trajectory:
        """The steps from the root to here; what follows is written after the lead, if any."""
        line = self.line()
        steps = [step for node in line for step in node.own_steps()]
        if self.lead:
            steps.append(Step(text=self.lead))
        return Trajectory(
            problem=self.problem,
            steps=tuple(steps),
            separator=_between(line),
            finish=self.finish,
            generator=generator,
        )

    def solution(self) -> str:
        """The text from the root to here."""
        line = self.line()
        return _between(line).join(text for node in line for text in node.steps)

    def own_steps(self) -> list[Step]:
        """Its own steps, with what was observed."""
        return [Step(text=text, observation=self.observation) for text in self.steps]

    def scored(self, semantics: Semantics, model: str) -> StepScores | Unscored:
        """Its scores as a record."""
        if self.scores is None:
            return Unscored(reason=self.unscored or "the search did not score it", model=model)
        return StepScores(values=self.scores, semantics=semantics, model=model)

    def value(self, how: Aggregation, semantics: Semantics) -> float | None:
        """One number for its steps; None where there are no scores."""
        if not self.scores:
            return None
        scores = StepScores.model_construct(values=self.scores, semantics=semantics, model="")
        return aggregate_scores(scores, how)


def _between(line: Sequence[Node]) -> str:
    """What stands between steps: turns are texts of their own."""
    return SEPARATOR if any(node.observation is not None for node in line) else ""
