"""Runs estimators on this machine: their wishes are answered by one policy in shared batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from prmkit.labelling.rollouts import Estimator, MakeEstimator, Outcomes, Rollouts
from prmkit.ledger import Ledger, seed_for
from prmkit.policies.base import Policy, SamplingSettings
from prmkit.policies.sampling import Judge
from prmkit.records import Record, StepLabels, Trajectory


def label(
    trajectories: Sequence[Trajectory],
    make_estimator: MakeEstimator,
    policy: Policy,
    judge: Judge,
    *,
    settings: SamplingSettings,
    seed: int = 0,
    in_flight: int = 64,
    ledger: Ledger | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[Record]:
    """Label trajectories, in order.

    Args:
        trajectories: with reference answers.
        make_estimator: starts the estimator of one trajectory.
        policy: the completer.
        judge: decides whether a completed solution is right.
        settings: how completions are drawn.
        seed: each wish draws from a seed of its own, made from this one, its trajectory, its
            prefix and how often that was asked for; labels do not depend on what runs beside.
        in_flight: trajectories whose wishes share batches.
        ledger: where finished trajectories are noted, and found again on resuming.
        on_progress: told the trajectories done and the rollouts drawn since the last call.

    Yields:
        One record per trajectory.
    """
    for at in range(0, len(trajectories), in_flight):
        group = trajectories[at : at + in_flight]
        known = [None if ledger is None else ledger.get(t.key) for t in group]
        open_ones = [t for t, record in zip(group, known, strict=True) if record is None]
        fresh = iter(
            _label_group(open_ones, make_estimator, policy, judge, settings, seed, on_progress)
        )
        records = [
            next(fresh) if stored is None else Record.model_validate_json(stored)
            for stored in known
        ]
        if ledger is not None and open_ones:
            ledger.put(
                {
                    record.trajectory.key: record.model_dump_json()
                    for record, stored in zip(records, known, strict=True)
                    if stored is None
                }
            )
        if on_progress is not None:
            on_progress(len(group), 0)
        yield from records


def _label_group(
    group: Sequence[Trajectory],
    make_estimator: MakeEstimator,
    policy: Policy,
    judge: Judge,
    settings: SamplingSettings,
    seed: int,
    on_progress: Callable[[int, int], None] | None,
) -> list[Record]:
    """Run the estimators of a group in step, answering all their wishes together."""
    running: dict[int, Estimator] = {i: make_estimator(t) for i, t in enumerate(group)}
    labels: dict[int, StepLabels] = {}
    replies: dict[int, list[Outcomes] | None] = dict.fromkeys(running)
    asked: Counter[tuple[int, str]] = Counter()
    while running:
        wishes: dict[int, list[Rollouts]] = {}
        for i, estimator in list(running.items()):
            try:
                reply = replies[i]
                wishes[i] = next(estimator) if reply is None else estimator.send(reply)
            except StopIteration as done:
                labels[i] = done.value
                del running[i]
        flat = [wish for of_one in wishes.values() for wish in of_one]
        seeds = []
        for i, of_one in wishes.items():
            for wish in of_one:
                key = wish.prefix.key
                seeds.append(seed_for(seed, group[i].key, key, str(asked[i, key])))
                asked[i, key] += 1
        outcomes = iter(_answer(flat, policy, judge, settings, seeds))
        for i, of_one in wishes.items():
            replies[i] = [next(outcomes) for _ in of_one]
        if on_progress is not None and flat:
            on_progress(0, sum(wish.n for wish in flat))
    return [Record(trajectory=t, labels=labels[i]) for i, t in enumerate(group)]


def _answer(
    wishes: Sequence[Rollouts],
    policy: Policy,
    judge: Judge,
    settings: SamplingSettings,
    seeds: Sequence[int],
) -> list[Outcomes]:
    """Draw the completions of all wishes; wishes for the same number share a call."""
    outcomes: list[Outcomes] = [[] for _ in wishes]
    for n in sorted({wish.n for wish in wishes}):
        which = [i for i, wish in enumerate(wishes) if wish.n == n]
        drawn = policy.complete(
            [wishes[i].prefix for i in which], n, settings, [seeds[i] for i in which]
        )
        for i, completions in zip(which, drawn, strict=True):
            prefix = wishes[i].prefix
            start = prefix.text + (prefix.separator if prefix.steps else "")
            outcomes[i] = [judge(prefix.problem, start + c.text).correct for c in completions]
    return outcomes
