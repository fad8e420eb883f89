"""Step labels from the tree of a search: every solution below a step is a rollout from it.

A tree of MCTS with rollouts is a source of labels as OmegaPRM's is (arXiv:2406.06592, section 3.3):
the share of right solutions below a step estimates how likely the policy still gets the answer from
there. Solutions that a search chose to look for are no fair sample of the policy's: where it went
because scores were high, they are more often right. So only those that were drawn as whole rests
count as rollouts, unless all are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from prmkit.policies.sampling import Outcome
from prmkit.records import Record, StepLabels
from prmkit.search.tree import Node


class _Tally(NamedTuple):
    """Rollouts below a step, and how many are right."""

    successes: int = 0
    trials: int = 0


def labelled_paths(
    root: Node,
    outcome: Callable[[Node], Outcome],
    *,
    source: str,
    every: bool = False,
    generator: str | None = None,
) -> Iterator[Record]:
    """A record for each path that a tree holds to its end, with soft labels of its steps.

    Steps below which no rollout ended, or whose rollouts could not be judged, have no label; a path
    without any label is left out. Steps inside of a text that was drawn as a whole are one rollout
    of the step before it, and have no label of their own but the last.

    Args:
        root: of the tree.
        outcome: of a whole solution.
        source: written into the labels.
        every: count solutions that were grown step by step too.
        generator: the policy, written into the trajectories.
    """
    tallies: dict[tuple[int, ...], _Tally] = {}
    ended = [node for node in root.walk() if node.is_drawn_solution]
    judged = {node.path: outcome(node) for node in ended}
    for node in ended:
        right = judged[node.path].correct
        if right is None or not (every or len(node.steps) > 1):
            continue
        for part in node.line()[:-1]:
            known = tallies.get(part.path, _Tally())
            tallies[part.path] = _Tally(known.successes + right, known.trials + 1)
    for node in ended:
        tally = [_of_steps(part, tallies) for part in node.line()]
        flat = [entry for of_part in tally for entry in of_part]
        right = judged[node.path].correct
        if flat and right is not None:
            # What a whole solution comes to is known.
            flat[-1] = _Tally(int(right), 1)
        if all(entry.trials == 0 for entry in flat):
            continue
        labels = StepLabels(
            values=tuple(e.successes / e.trials if e.trials else None for e in flat),
            kind="soft",
            successes=tuple(e.successes if e.trials else None for e in flat),
            trials=tuple(e.trials if e.trials else None for e in flat),
            source=source,
        )
        trajectory = node.trajectory(generator).model_copy(
            update={"answer": judged[node.path].answer, "correct": right}
        )
        yield Record(trajectory=trajectory, labels=labels)


def _of_steps(part: Node, tallies: dict[tuple[int, ...], _Tally]) -> list[_Tally]:
    """Of a node's own steps: the last stands for the node, those before were never stood at."""
    if not part.steps:
        return []
    return [_Tally()] * (len(part.steps) - 1) + [tallies.get(part.path, _Tally())]
