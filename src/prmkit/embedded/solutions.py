"""Solutions to the world's problems as text: right ones, and ones with a learner's mistakes.

The mistakes are those of people: a slip in the arithmetic, more often where there is a carry;
the operation that a wording tempts one to; a number that does not belong. After a mistake the
solution goes on consistently with the wrong number.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from prmkit.embedded import phrases
from prmkit.embedded.world import Operation, Relation, World, compute
from prmkit.records import Problem

_INVERSE: dict[Operation, Operation] = {"+": "-", "-": "+", "*": "/", "/": "*"}


@dataclass(frozen=True, kw_only=True)
class MistakeRates:
    """How often a learner errs, per step.

    Attributes:
        slip: a wrong result of an easy calculation.
        hard_slip: the same with a carry, a borrow, or a product above 20.
        tempted: the inverse operation where the wording tempts to it.
        confused: the inverse operation elsewhere.
        distracted: a number that does not belong, where the story has one.
        misread: another number of the story, or one found before.
        skipped: a calculation left out, its first number taken for its result.
    """

    slip: float = 0.02
    hard_slip: float = 0.06
    tempted: float = 0.35
    confused: float = 0.02
    distracted: float = 0.05
    misread: float = 0.012
    skipped: float = 0.015


NO_MISTAKES = MistakeRates(
    slip=0, hard_slip=0, tempted=0, confused=0, distracted=0, misread=0, skipped=0
)


def _is_hard(a: int, op: Operation, b: int) -> bool:
    if op == "+":
        return a % 10 + b % 10 >= 10
    if op == "-":
        return a % 10 < b % 10
    return max(a, b, a * b if op == "*" else a) > 20


def _slip(result: int, rng: random.Random) -> int:
    wrong = result
    while wrong == result or wrong < 0:
        wrong = result + rng.choice((-10, -2, -1, -1, 1, 1, 2, 10))
    return wrong


def _operation(relation: Relation, rates: MistakeRates, rng: random.Random) -> Operation:
    rate = rates.tempted if relation.tempting else rates.confused
    return _INVERSE[relation.op] if rng.random() < rate else relation.op


def _operand(
    world: World, found: list[int], ref: tuple[str, int], rates: MistakeRates, rng: random.Random
) -> int:
    """A number of a calculation, perhaps another one than meant."""
    if ref[0] == "given" and world.distractors and rng.random() < rates.distracted:
        return rng.choice(world.distractors)
    if rng.random() < rates.misread:
        told = [n for r in world.relations for kind, n in (r.a, r.b) if kind == "given"]
        return rng.choice(told + found)
    return found[ref[1]] if ref[0] == "relation" else ref[1]


def _state(
    relation: Relation, a: int, op: Operation, b: int, c: int, items: str, style: int
) -> str:
    wordings = {
        "total": phrases.STATE_TOTAL,
        "groups": phrases.STATE_GROUPS,
        "together": phrases.STATE_TOGETHER,
    }[relation.role]
    wording = wordings[style % len(wordings)]
    return wording.format(p=relation.person, a=a, op=op, b=b, c=c, items=items) + "\n"


def write_solution(
    problem: Problem, rng: random.Random, rates: MistakeRates = NO_MISTAKES
) -> list[str]:
    r"""The steps of a solution, each a line that ends in ``\n``; the last states the answer.

    With `NO_MISTAKES` it is right. With other rates, mistakes happen at those rates; where a
    mistake leads to a number that cannot be (negative, a broken division, over 99), that step is
    tried again.
    """
    world = World.of(problem)
    found: list[int] = []
    steps: list[str] = []
    for relation in world.relations:
        if rng.random() < rates.skipped:
            found.append(_operand(world, found, relation.a, NO_MISTAKES, rng))
            continue
        for _ in range(20):
            a, b = (_operand(world, found, ref, rates, rng) for ref in (relation.a, relation.b))
            op = _operation(relation, rates, rng)
            result = compute(a, op, b)
            if result is not None and 0 <= result <= 99:
                break
        else:
            # A wrong number from before leaves no exact way on: the learner forces one.
            op, result = relation.op, max(0, min(99, a // max(b, 1)))
        if rng.random() < (rates.hard_slip if _is_hard(a, op, b) else rates.slip):
            result = min(99, _slip(result, rng))
        found.append(result)
        steps.append(_state(relation, a, op, b, result, world.items, rng.randrange(6)))
    steps.append(phrases.STATE_ANSWER.format(c=found[-1]) + "\n")
    return steps
