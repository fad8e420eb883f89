"""The scorer's side of a search: nodes to step scores, new steps alone where it can go on."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from prmkit.errors import BackendError, InputTooLong, InvalidRecord, ScoringError
from prmkit.records import StepScores, Unscored
from prmkit.scorers.base import CountingScorer, PrefixScorer, Scorer
from prmkit.search.tree import Cost, Node


class Scores(NamedTuple):
    """What a scorer says of a node.

    Attributes:
        values: of all steps up to it; None where there are none.
        unscored: why there are none.
        cost: of scoring it.
        length: tokens that were read up to it, where the scorer goes on from there.
    """

    values: tuple[float, ...] | None
    unscored: str | None
    cost: Cost
    length: int | None = None


class Kept(NamedTuple):
    """What is kept of a node that was scored, to go on from.

    Attributes:
        state: the scorer's; None after a run was resumed, to be made again when it is needed.
        values: the scores of all steps up to it.
        length: tokens up to it.
    """

    state: Any
    values: tuple[float, ...]
    length: int


def scores_of(event: Mapping[str, Any]) -> Scores:
    """What a trace noted."""
    values = event.get("values")
    return Scores(
        None if values is None else tuple(values),
        event.get("unscored"),
        Cost(*event["cost"]),
        event.get("length"),
    )


class Judging:
    """Answers wishes for scores.

    Args:
        scorer: where it goes on from prefixes, it reads new steps alone. Then a node can be
            scored when its parent is, the root included, or together with it.
    """

    def __init__(self, scorer: Scorer):
        self.scorer = scorer
        self._prefixes = scorer if isinstance(scorer, PrefixScorer) and scorer.extends else None
        self._counting = scorer if isinstance(scorer, CountingScorer) and scorer.counts else None
        # Tokenizers are not made for several threads at once.
        self._alone = threading.Lock()

    @property
    def extends(self) -> bool:
        """Whether it goes on from prefixes."""
        return self._prefixes is not None

    @property
    def counts(self) -> bool:
        """Whether it knows the tokens that it reads."""
        return self._counting is not None

    def most(self, node: Node) -> int:
        """Tokens that scoring a node reads at most."""
        if self._counting is None:
            return 0
        with self._alone:
            (whole,) = self._counting.n_tokens([node.trajectory()])
        before = node.parent.state if node.parent is not None else None
        return whole if before is None else max(whole - before.length, 0)

    def score(self, nodes: Sequence[Node]) -> list[Scores]:
        """Score nodes, in order."""
        with self._alone:
            if self._prefixes is None:
                return self._whole(nodes)
            return self._onward(self._prefixes, nodes)

    def _whole(self, nodes: Sequence[Node]) -> list[Scores]:
        """All steps of each in one pass."""
        trajectories = [node.trajectory() for node in nodes]
        n_tokens = [0] * len(nodes)
        if self._counting is not None:
            n_tokens = self._counting.n_tokens(trajectories)
        return [
            Scores(
                found.values if isinstance(found, StepScores) else None,
                found.reason if isinstance(found, Unscored) else None,
                Cost(scorings=1, scorer_tokens=n),
            )
            for found, n in zip(self.scorer.score(trajectories), n_tokens, strict=True)
        ]

    def _onward(self, scorer: PrefixScorer, nodes: Sequence[Node]) -> list[Scores]:
        """Each after its parent; parents that lost their state get it again."""
        todo = {
            id(part): part
            for node in nodes
            for part in node.line()
            if part.state is None or part.state.state is None
        }
        failed: dict[int, str] = {}
        while todo:
            ready = {
                key: part
                for key, part in todo.items()
                if part.parent is None or (part.parent.state and part.parent.state.state)
            }
            if not ready:
                break
            for part, made in zip(
                ready.values(), self._made(scorer, list(ready.values())), strict=True
            ):
                if isinstance(made, Kept):
                    part.state = made
                else:
                    failed[id(part)] = made
            todo = {key: part for key, part in todo.items() if key not in ready}
        return [self._told(node, failed) for node in nodes]

    def _told(self, node: Node, failed: Mapping[int, str]) -> Scores:
        one = Cost(scorings=1 if node.steps else 0)
        if node.state is None:
            reason = failed.get(id(node), "a step before it could not be scored")
            return Scores(None, reason, one)
        before = 0 if node.parent is None else node.parent.state.length
        cost = one._replace(scorer_tokens=node.state.length - before)
        return Scores(node.state.values, None, cost, node.state.length)

    def _made(self, scorer: PrefixScorer, parts: Sequence[Node]) -> list[Kept | str]:
        """What is to be kept of nodes whose parents are scored, or why there is nothing.

        A scorer that refuses one of them refuses all, so then the halves are asked for.
        """
        try:
            return self._extended(scorer, parts)
        except (InputTooLong, InvalidRecord, ScoringError, BackendError) as error:
            if len(parts) == 1:
                return [str(error)]
        half = len(parts) // 2
        return self._made(scorer, parts[:half]) + self._made(scorer, parts[half:])

    def _extended(self, scorer: PrefixScorer, parts: Sequence[Node]) -> list[Kept | str]:
        found: dict[int, Kept | str] = {}
        longer: dict[int, Kept] = {}
        for i, part in enumerate(parts):
            if part.parent is None:
                state = scorer.start(part.problem)
                found[i] = Kept(state, (), scorer.length(state))
            elif part.steps:
                longer[i] = part.parent.state
            else:
                found[i] = part.parent.state
        values, states = scorer.extend_by(
            [kept.state for kept in longer.values()],
            [parts[i].own_steps() for i in longer],
        )
        for (i, kept), own, state in zip(longer.items(), values, states, strict=True):
            found[i] = Kept(state, (*kept.values, *own), scorer.length(state))
        return [found[i] for i in range(len(parts))]
