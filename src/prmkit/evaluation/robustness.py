"""Does a verdict hold when a solution is written otherwise?

Each change keeps the solution as right or wrong as it was (but for the order of steps), and says
which old step each new one holds, so that verdicts can be compared: the first suspected step, and
whether any is suspected.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from prmkit.evaluation.cases import Case, Protocol, group_numbers
from prmkit.evaluation.judgements import Equal, Judgement, decide
from prmkit.evaluation.statistics import Bootstrap, Estimate, mean
from prmkit.ledger import seed_for
from prmkit.records import Record, Step, Trajectory

_EMPTY_WORDS = ("Okay, so let us see.", "Now let us go on.", "Well, then.")
_CONFIDENT = ("I am absolutely sure of this.", "This is certainly correct.", "Without any doubt:")
_SEPARATOR = " \n\n ки <extra_0> \n\n "


class Changed(NamedTuple):
    """A solution that was changed.

    Attributes:
        trajectory: as it is now.
        origin: for each new step, the old ones that it holds.
    """

    trajectory: Trajectory
    origin: tuple[tuple[int, ...], ...]


Change = Callable[[Trajectory, random.Random], Changed | None]
"""Makes a change, or None where the solution has no place for it."""


def _made(
    trajectory: Trajectory, steps: Sequence[Step], origin: Sequence[tuple[int, ...]]
) -> Changed:
    return Changed(trajectory.model_copy(update={"steps": tuple(steps)}), tuple(origin))


def merged(trajectory: Trajectory, rng: random.Random) -> Changed | None:
    """Two neighbouring steps become one."""
    steps = list(trajectory.steps)
    # What was observed after the first of them has no place inside of a step.
    places = [k for k in range(len(steps) - 1) if steps[k].observation is None]
    if not places:
        return None
    k = rng.choice(places)
    text = steps[k].text + (trajectory.separator or "") + steps[k + 1].text
    one = Step(text=text, observation=steps[k + 1].observation)
    origin = [(i,) for i in range(k)] + [(k, k + 1)] + [(i,) for i in range(k + 2, len(steps))]
    return _made(trajectory, [*steps[:k], one, *steps[k + 2 :]], origin)


def split(trajectory: Trajectory, rng: random.Random) -> Changed | None:
    """One step becomes two, cut after a sentence or else between words."""
    places = []
    for k, step in enumerate(trajectory.steps):
        inner = step.text.strip()
        cuts = [i + 1 for i in range(len(inner) - 2) if inner[i] in ".;," and inner[i + 1] == " "]
        cuts = cuts or [i for i, c in enumerate(inner) if c == " "]
        if cuts:
            places.append((k, inner, cuts[len(cuts) // 2]))
    if not places:
        return None
    k, text, at = places[rng.randrange(len(places))]
    steps = list(trajectory.steps)
    parts = [
        Step(text=text[:at].rstrip()),
        Step(text=text[at:].lstrip(), observation=steps[k].observation),
    ]
    origin = [(i,) for i in range(k)] + [(k,), (k,)] + [(i,) for i in range(k + 1, len(steps))]
    return _made(trajectory, [*steps[:k], *parts, *steps[k + 1 :]], origin)


def reordered(trajectory: Trajectory, rng: random.Random) -> Changed | None:
    """Two neighbouring steps change places: a verdict that never changes does not read order."""
    steps = list(trajectory.steps)
    if len(steps) < 2:
        return None
    k = rng.randrange(len(steps) - 1)
    order = list(range(len(steps)))
    order[k], order[k + 1] = order[k + 1], order[k]
    return _made(trajectory, [steps[i] for i in order], [(i,) for i in order])


def _prefixed(words: Sequence[str]) -> Change:
    def change(trajectory: Trajectory, rng: random.Random) -> Changed | None:
        if not trajectory.steps:
            return None
        steps = [
            step.model_copy(update={"text": f"{rng.choice(words)} {step.text}"})
            for step in trajectory.steps
        ]
        return _made(trajectory, steps, [(i,) for i in range(len(steps))])

    return change


def separator_inserted(trajectory: Trajectory, rng: random.Random) -> Changed | None:
    """A step gets, in its midst, what models take for the end of one."""
    if not trajectory.steps:
        return None
    steps = list(trajectory.steps)
    k = rng.randrange(len(steps))
    text = steps[k].text
    middle = len(text) // 2
    steps[k] = steps[k].model_copy(update={"text": text[:middle] + _SEPARATOR + text[middle:]})
    return _made(trajectory, steps, [(i,) for i in range(len(steps))])


CHANGES: dict[str, Change] = {
    "merged": merged,
    "split": split,
    "reordered": reordered,
    "empty_words": _prefixed(_EMPTY_WORDS),
    "confidence": _prefixed(_CONFIDENT),
    "separator": separator_inserted,
}
"""Every change, by name."""


def changed_cases(cases: Sequence[Case], name: str, seed: int) -> list[tuple[int, Changed]]:
    """The cases that have a place for a change: their numbers, and how they are then.

    Args:
        cases: of a benchmark.
        name: of the change.
        seed: what places and words are drawn from, for each case by itself.
    """
    found = []
    for i, case in enumerate(cases):
        rng = random.Random(seed_for(seed, name, case.id))
        changed = CHANGES[name](case.record.trajectory, rng)
        if changed is not None:
            found.append((i, changed))
    return found


class Shift(NamedTuple):
    """What a change did to a verdict.

    Attributes:
        verdict: whether "some step is wrong" became "none is", or the other way.
        place: whether the first suspected step is no longer the same one.
    """

    verdict: bool
    place: bool


def shift(before: int | None, after: int | None, changed: Changed) -> Shift:
    """Compare two first suspected steps, before and after a change; None for none."""
    verdict = (before is None) != (after is None)
    if before is None or after is None:
        return Shift(verdict, verdict)
    return Shift(False, before not in changed.origin[after])


def first_suspected(judgement: Judgement, protocol: Protocol, equal: Equal) -> int | None:
    """The first wrong step by the verdict on a judgement."""
    verdict = decide(judgement, protocol.rule, equal)
    return None if verdict is None else verdict.first_error


def robustness(
    cases: Sequence[Case],
    before: Sequence[Judgement],
    after: Callable[[str, Sequence[Case]], Sequence[Judgement]],
    protocol: Protocol,
    bootstrap: Bootstrap,
    *,
    equal: Equal = "right",
    seed: int = 0,
) -> dict[str, Estimate]:
    """How often each change changes the verdict on a solution, and the place of the first error.

    Args:
        cases: of a benchmark.
        before: the judgements of the solutions as they are.
        after: scores changed solutions; told which change it is.
        protocol: how scores become verdicts.
        bootstrap: weights over the groups of the cases.
        equal: what a step is whose score is the threshold itself.
        seed: what places and words are drawn from.
    """
    groups = group_numbers(cases)
    n_groups = int(groups.max(initial=-1)) + 1
    figures: dict[str, Estimate] = {}
    for name in CHANGES:
        verdicts, places, at, unscored = [], [], [], 0
        changed = changed_cases(cases, name, seed)
        made = [
            cases[i]._replace(record=Record(trajectory=c.trajectory, meta=cases[i].record.meta))
            for i, c in changed
        ]
        for (i, change), now in zip(changed, after(name, made), strict=True):
            if before[i].unscored or now.unscored:
                unscored += 1
                continue
            moved = shift(
                first_suspected(before[i], protocol, equal),
                first_suspected(now, protocol, equal),
                change,
            )
            verdicts.append(moved.verdict)
            places.append(moved.place)
            at.append(int(groups[i]))
        where = np.array(at, dtype=np.int64)
        figures[f"robustness/{name}/verdict_changed"] = bootstrap.estimate(
            mean(verdicts, where, n_groups)
        )
        figures[f"robustness/{name}/not_scored"] = Estimate(float(unscored), None, None, len(made))
        figures[f"robustness/{name}/place_changed"] = bootstrap.estimate(
            mean(places, where, n_groups)
        )
    return figures
