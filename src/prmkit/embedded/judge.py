"""The world's own judge: which step of a solution is the first wrong one, and why.

It takes any text. A step is right if each of its equations is true and each calculation in it
is one of the relations that the problem needs (from quantities known so far), if it uses no
number that is neither told nor found, and if a final answer that it states is the right one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from prmkit.embedded.world import Operation, Relation, World, compute
from prmkit.records import Problem, StepLabels, Trajectory

Verdict = Literal["right", "arithmetic", "quantity", "operation", "unsupported"]
"""``arithmetic``: an equation is false. ``operation``: right numbers, wrong operation.
``quantity``: a number that does not belong there. ``unsupported``: an answer without its steps."""

_NUMBER = re.compile(r"\d+")
_TOKEN = re.compile(r"\d+|[-+*/=()]")
_OPERATORS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-"})
# Two numbers or brackets joined by operators, with at least one operator.
_CALCULATION = re.compile(r"[(\s]*\d+[)\s]*(?:[-+*/=][(\s]*\d+[)\s]*)+")
_ANSWER = re.compile(r"\banswer\b\D*?(-?\d+)(?!\s*[-+*/=]\s*\d)", re.IGNORECASE)


class Judgement(NamedTuple):
    """What the world says of a solution.

    Attributes:
        verdicts: one per step; after the first wrong step they are relative to the truth, so a
            step that carries a wrong number on is wrong too.
        first_error: 0-based index of the first wrong step, or None.
        answer: the answer stated last, or None.
        correct: whether that answer is right.
    """

    verdicts: tuple[Verdict, ...]
    first_error: int | None
    answer: str | None
    correct: bool


class _BadExpression(Exception):
    """An expression that cannot be read or computed."""


class Referee:
    """Goes through a solution step by step; remembers which relations it has found."""

    def __init__(self, problem: Problem):
        self.world = World.of(problem)
        self.told = {int(n) for n in _NUMBER.findall(problem.text)}
        self.found: set[int] = set()

    def step(self, text: str) -> Verdict:
        """The verdict on the next step."""
        text = text.translate(_OPERATORS)
        verdict: Verdict = "right"
        for calculation in _CALCULATION.finditer(text):
            verdict = self._calculation(calculation.group())
            if verdict != "right":
                return verdict
        stated = _ANSWER.findall(text)
        if stated:
            if int(stated[-1]) != self.world.answer:
                return "quantity"
            if len(self.world.relations) - 1 not in self.found:
                return "unsupported"
        values = {self.world.relations[i].value for i in self.found}
        rest = _CALCULATION.sub(" ", text)
        if any(int(n) not in self.told and int(n) not in values for n in _NUMBER.findall(rest)):
            return "quantity"
        return verdict

    def _calculation(self, text: str) -> Verdict:
        sides = [_TOKEN.findall(side) for side in text.split("=")]
        verdicts: list[Verdict] = []
        values: list[int | None] = []
        for side in sides:
            try:
                values.append(_Expression(side, self, verdicts).value())
            except _BadExpression:
                values.append(None)
        if len(sides) > 1 and (None in values or len(set(values)) > 1):
            return "arithmetic"
        return next((v for v in verdicts if v != "right"), "right")

    def relate(self, a: int, op: Operation, b: int) -> Verdict:
        """Whether ``a op b`` is a relation that the story needs and whose parts are known."""
        near: Verdict = "quantity"
        # Relations not found yet come first: two of them may be the same by value.
        for index in sorted(range(len(self.world.relations)), key=self.found.__contains__):
            relation = self.world.relations[index]
            if not self._ready(relation):
                continue
            x, y = self.world.operands(relation)
            if _same(a, op, b, x, relation.op, y):
                self.found.add(index)
                return "right"
            if index not in self.found and {a, b} == {x, y}:
                near = "operation"
        return near

    def n_fitting(self, a: int, op: Operation, b: int) -> int:
        """How many of `a`, `op` and `b`, read in this order, still fit a relation that may come.

        0 where already `a` is a wrong number; 3 where only the result can be wrong.
        """
        may_come: list[tuple[int | Operation, ...]] = []
        for relation in filter(self._ready, self.world.relations):
            x, y = self.world.operands(relation)
            may_come.append((x, relation.op, y))
            if relation.op in "+*":
                may_come.append((y, relation.op, x))
            if relation.op == "*" and 2 in (x, y):
                doubled = x + y - 2
                may_come.append((doubled, "+", doubled))
        for n, part in enumerate((a, op, b)):
            may_come = [parts for parts in may_come if parts[n] == part]
            if not may_come:
                return n
        return 3

    def _ready(self, relation: Relation) -> bool:
        return all(
            kind == "given" or index in self.found for kind, index in (relation.a, relation.b)
        )


def _same(a: int, op: Operation, b: int, x: int, needed: Operation, y: int) -> bool:
    if op == needed and ((a, b) == (x, y) or (op in "+*" and (a, b) == (y, x))):
        return True
    # Doubling as a sum.
    return op == "+" and needed == "*" and a == b and sorted((x, y)) == sorted((a, 2))


class _Expression:
    """Recursive descent over ``+ - * / ( )``; every calculation in it is put to the judge."""

    def __init__(self, tokens: list[str], judge: Referee, verdicts: list[Verdict]):
        self.tokens, self.judge, self.verdicts = tokens, judge, verdicts
        self.at = 0

    def value(self) -> int:
        result = self._sum()
        if self.at != len(self.tokens):
            raise _BadExpression
        return result

    def _peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def _binary(self, a: int, b: int, op: Operation) -> int:
        self.verdicts.append(self.judge.relate(a, op, b))
        result = compute(a, op, b)
        if result is None:
            raise _BadExpression
        return result

    def _sum(self) -> int:
        result = self._product()
        while self._peek() in ("+", "-"):
            op: Operation = "+" if self._peek() == "+" else "-"
            self.at += 1
            result = self._binary(result, self._product(), op)
        return result

    def _product(self) -> int:
        result = self._atom()
        while self._peek() in ("*", "/"):
            op: Operation = "*" if self._peek() == "*" else "/"
            self.at += 1
            result = self._binary(result, self._atom(), op)
        return result

    def _atom(self) -> int:
        token = self._peek()
        self.at += 1
        if token == "(":
            result = self._sum()
            if self._peek() != ")":
                raise _BadExpression
            self.at += 1
            return result
        if not token.isdigit() or len(token) > 9:
            raise _BadExpression
        return int(token)


def judge(problem: Problem, steps: Sequence[str]) -> Judgement:
    """Judge a solution to a problem of the embedded world, step by step.

    Args:
        problem: made by `prmkit.embedded.world.make_problem`.
        steps: the texts of the steps, any text at all.

    Raises:
        UnknownName: if the problem is not of this world.
    """
    referee = Referee(problem)
    verdicts = tuple(referee.step(step) for step in steps)
    first = next((i for i, verdict in enumerate(verdicts) if verdict != "right"), None)
    stated = _ANSWER.findall("\n".join(steps).translate(_OPERATORS))
    answer = str(int(stated[-1])) if stated else None
    return Judgement(verdicts, first, answer, answer == problem.answer)


def true_labels(trajectory: Trajectory) -> StepLabels:
    """The world's labels of a trajectory: 1 before the first wrong step, 0 from it on."""
    judgement = judge(trajectory.problem, [step.text for step in trajectory.steps])
    first = judgement.first_error
    values = tuple(1.0 if first is None or i < first else 0.0 for i in range(len(trajectory.steps)))
    return StepLabels(values=values, kind="hard", source="embedded world")
