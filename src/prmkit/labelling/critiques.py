"""Critiques in words: what a model that judges in words is trained on.

A critique is what a family asks a policy to write about a solution: one text for each time it
asks. They are kept in ``meta["critiques"]``, and `prmkit.training.critiques` takes those that agree
with the labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from prmkit.labelling.rollouts import Rollout
from prmkit.policies.base import Policy
from prmkit.records import Record, Trajectory
from prmkit.scorers.families.base import Choose, Critique, Generative
from prmkit.scorers.families.judge import right_steps
from prmkit.scorers.generative import GenerativeScorer
from prmkit.settings import at_least


def critiques_of(
    trajectories: Sequence[Trajectory],
    policy: Policy,
    family: Generative,
    n: int,
    *,
    seed: int = 0,
    max_new_tokens: int | None = None,
) -> list[list[list[str]]]:
    """Critiques of trajectories, drawn in shared batches.

    Verdicts are left to the words, also where the policy could be asked how likely each is: what is
    drawn must say itself what it finds.

    Args:
        trajectories: to be judged.
        policy: who writes.
        family: how critiques go; one that runs no programs.
        n: critiques of each.
        seed: of all that is drawn.
        max_new_tokens: of one stretch of words; by default as the family's authors have it.

    Returns:
        Of each trajectory, of each critique that came to its end, the texts that were written, in
        the order in which the family asks.

    Raises:
        InvalidSetting: if `n` is below 1.
        ScoringError: if the family runs programs.
    """
    at_least(1, n=n)
    noted: dict[str, list[list[str]]] = {}

    def noting(trajectory: Trajectory) -> Critique:
        texts: list[str] = []
        running = family.critique(trajectory)
        answer: Any = None
        while True:
            try:
                wish = running.send(answer)
            except StopIteration as done:
                noted.setdefault(trajectory.key, []).append(texts)
                found: list[float] | str = done.value
                return found
            answer = None
            if not isinstance(wish, Choose):
                answer = yield wish
                texts.append(answer)

    scorer = GenerativeScorer(
        policy,
        family._replace(critique=noting),
        n_samples=n,
        max_new_tokens=max_new_tokens,
        seed=seed,
    )
    once = {trajectory.key: trajectory for trajectory in trajectories}
    scorer.score(list(once.values()))
    return [noted.get(trajectory.key, []) for trajectory in trajectories]


def with_critiques(
    records: Sequence[Record],
    policy: Policy,
    family: Generative,
    n: int,
    *,
    seed: int = 0,
    max_new_tokens: int | None = None,
    in_flight: int = 64,
) -> Iterator[Record]:
    """Records with critiques in ``meta["critiques"]``, behind those that they have; in order.

    Args:
        records: to be judged; their labels, if they have any, are not shown.
        policy: see `critiques_of`.
        family: see `critiques_of`.
        n: critiques of each.
        seed: of all that is drawn.
        max_new_tokens: see `critiques_of`.
        in_flight: records that share batches.
    """
    at_least(1, in_flight=in_flight)
    for at in range(0, len(records), in_flight):
        some = records[at : at + in_flight]
        trajectories = [record.trajectory for record in some]
        drawn = critiques_of(
            trajectories, policy, family, n, seed=seed, max_new_tokens=max_new_tokens
        )
        for record, own in zip(some, drawn, strict=True):
            yield _behind(record, critiques=own)


def with_verdicts(record: Record, critiques: Sequence[Rollout]) -> Record:
    """A record with what a judge wrote of it, and with the verdict of each critique.

    ``meta["critiques"]`` is as `prmkit.training.critiques` reads it. ``meta["verdicts"]`` tells of
    each the 0-based first wrong step, -1 where it finds none, None where it comes to no verdict.
    Both go behind what is there; a critique that could not be drawn is left out.

    Args:
        record: that was judged.
        critiques: drawn by `prmkit.labelling.judge.judge`.
    """
    n_steps = len(record.trajectory.steps)
    written = [one.text for one in critiques if one.error is None]
    found = [right_steps(text, n_steps) for text in written]
    verdicts = [None if isinstance(n, str) else -1 if n == n_steps else n for n in found]
    return _behind(record, critiques=[[text] for text in written], verdicts=verdicts)


def _behind(record: Record, **lists: Sequence[Any]) -> Record:
    """A record with items behind those that lists in its meta have."""
    meta: dict[str, Any] = dict(record.meta)
    for name, items in lists.items():
        before = meta.get(name, [])
        meta[name] = [*(before if isinstance(before, list) else [before]), *items]
    return record.replace(meta=meta)
