"""OmegaPRM: a tree of one problem's solution prefixes, grown where an error can be found cheaply.

A wrong rollout of a prefix from which some rollouts are right holds an error. The search takes the
most promising of such rollouts, finds its first wrong step by binary search, and keeps every prefix
that was probed on the way with its share of right rollouts.

    Q(s, r) = alpha ^ (1 - MC(s)) * beta ^ (tokens of r / L)       long, hard ones are worth less
    U(s)    = c_puct * sqrt(sum of N over all states) / (1 + N(s)) much visited ones too

Reference: Luo et al. 2024, arXiv:2406.06592, section 3.3 and appendix.
A prefix is rolled out once: another rollout that reaches it finds its value in the tree.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from prmkit.labelling.rollouts import (
    NOTHING,
    Outcomes,
    Rollout,
    Rollouts,
    Tally,
    Task,
    needs_reference,
)
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory
from prmkit.settings import above, at_least

Splitter = Callable[[str], Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class OmegaSettings:
    """How the tree grows; defaults are the paper's.

    Attributes:
        alpha: of omega: weight of a state's value.
        beta: of omega: weight of a rollout's length.
        length: of omega: tokens at which a rollout's length counts fully (L).
        c_puct: of omega: weight of exploration.
    """

    alpha: float = 0.5
    beta: float = 0.9
    length: float = 500
    c_puct: float = 0.125

    def __post_init__(self) -> None:
        at_least(0, c_puct=self.c_puct)
        above(0, alpha=self.alpha, beta=self.beta, length=self.length)


@dataclass
class State:
    """A prefix of the tree.

    Attributes:
        prefix: the problem with the steps so far.
        tally: of its rollouts.
        visits: how often one of its rollouts was selected (N).
    """

    prefix: Trajectory
    tally: Tally = NOTHING
    visits: int = 0

    @property
    def value(self) -> float:
        """MC(s), the share of right rollouts; 0 where none could be judged."""
        return self.tally.successes / self.tally.trials if self.tally.trials else 0.0


class Selection(NamedTuple):
    """What one round of the search took.

    Attributes:
        state: its number in `OmegaTree.states`.
        rollout: the wrong rollout that was searched.
        quality: Q when it was taken.
        exploration: U then.
        first_error: how many steps of the rollout are right.
    """

    state: int
    rollout: Rollout
    quality: float
    exploration: float
    first_error: int


@dataclass
class OmegaTree:
    """What the search leaves.

    Attributes:
        states: in the order in which they were found; the first is the problem alone.
        selections: in order.
    """

    states: list[State] = field(default_factory=list)
    selections: list[Selection] = field(default_factory=list)

    def examples(self) -> list[Record]:
        """For each state whose prefix without its last step is a state too: that step's value.

        Only the last step has a label: the share of right rollouts after it.
        """
        known = {_texts(state.prefix) for state in self.states}
        records = []
        for state in self.states:
            steps = state.prefix.steps
            if not steps or not state.tally.trials or _texts(state.prefix)[:-1] not in known:
                continue
            open_before = (None,) * (len(steps) - 1)
            labels = StepLabels(
                values=(*open_before, state.value),
                kind="soft",
                successes=(*open_before, state.tally.successes),
                trials=(*open_before, state.tally.trials),
                source="omega",
            )
            records.append(Record(trajectory=state.prefix, labels=labels))
        return records


def omega(
    problem: Problem,
    split: Splitter,
    *,
    n_rollouts: int = 8,
    searches: int = 100,
    settings: OmegaSettings | None = None,
) -> Task[OmegaTree]:
    """Grow the tree of a problem.

    Args:
        problem: with a reference answer.
        split: a completion to the texts of its steps; they join back to it.
        n_rollouts: of each state (k).
        searches: selections at most.
        settings: see `OmegaSettings`.

    Returns:
        A `Task` that returns the tree. A problem of
        which all rollouts are right, or none, has nothing to search: its tree is the problem alone.
    """
    at_least(1, n_rollouts=n_rollouts, searches=searches)
    settings = settings or OmegaSettings()
    root = Trajectory(problem=problem)
    needs_reference(root)
    tree = OmegaTree()
    by_texts: dict[tuple[str, ...], int] = {}
    pool: list[tuple[int, Rollout]] = []
    yield from _visit(root, tree, by_texts, pool, n_rollouts)
    for _ in range(searches):
        if not pool:
            break
        taken, quality, exploration = _best(pool, tree.states, settings)
        number, rollout = pool.pop(taken)
        tree.states[number].visits += 1
        steps = tuple(Step(text=text) for text in split(rollout.text))
        start = tree.states[number].prefix
        good, bad = 0, len(steps)
        while bad - good > 1:
            middle = (good + bad) // 2
            prefix = start.model_copy(update={"steps": (*start.steps, *steps[:middle])})
            found = yield from _visit(prefix, tree, by_texts, pool, n_rollouts)
            good, bad = (middle, bad) if tree.states[found].value > 0 else (good, middle)
        tree.selections.append(Selection(number, rollout, quality, exploration, good))
    return tree


def _visit(
    prefix: Trajectory,
    tree: OmegaTree,
    by_texts: dict[tuple[str, ...], int],
    pool: list[tuple[int, Rollout]],
    n: int,
) -> Generator[list[Rollouts], list[Outcomes], int]:
    """The number of a prefix's state; a new one is rolled out, its wrong rollouts are pooled."""
    texts = _texts(prefix)
    if texts in by_texts:
        return by_texts[texts]
    (outcomes,) = yield [Rollouts(prefix, n)]
    number = len(tree.states)
    state = State(prefix, NOTHING.add(outcomes))
    tree.states.append(state)
    by_texts[texts] = number
    if 0 < state.value < 1:
        pool.extend((number, rollout) for rollout in outcomes if rollout.correct is False)
    return number


def _best(
    pool: Sequence[tuple[int, Rollout]], states: Sequence[State], settings: OmegaSettings
) -> tuple[int, float, float]:
    """The place in the pool of the best rollout, the first of equals; its Q and U."""
    visits = math.sqrt(sum(state.visits for state in states))
    scored = []
    for number, rollout in pool:
        state = states[number]
        length = rollout.n_tokens / settings.length
        quality = settings.alpha ** (1 - state.value) * settings.beta**length
        scored.append((quality, settings.c_puct * visits / (1 + state.visits)))
    best = max(range(len(pool)), key=lambda i: sum(scored[i]))
    return best, *scored[best]


def _texts(prefix: Trajectory) -> tuple[str, ...]:
    return tuple(step.text for step in prefix.steps)
