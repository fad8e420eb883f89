"""Grade-school word problems from a seed, and a judge of any solution to them.

What enters is a split and an index; what leaves is a `Problem` whose text tells a story of
people and things, with facts that do not matter and wordings that tempt a wrong operation.
The relations that solve it travel in ``Problem.meta["world"]``, so that `judge` can say of any
solution text which step is the first wrong one, and why.

A solution is right step by step when every equation in it is true and is one of the relations
that the story needs, between quantities known so far. This is decided by value: a wrong number
that happens to equal the right one is the right one.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from prmkit.embedded import phrases
from prmkit.embedded.phrases import Wording
from prmkit.errors import UnknownName
from prmkit.records import Problem

Split = Literal["train", "test", "ood"]
Operation = Literal["+", "-", "*", "/"]
SPLITS: tuple[Split, ...] = ("train", "test", "ood")

LARGEST = 60
"""No quantity of a story is larger."""
STEP_WEIGHTS = {2: 20, 3: 24, 4: 20, 5: 14, 6: 10, 7: 7, 8: 5}
OOD_STEPS = (9, 10)


class Relation(NamedTuple):
    """One calculation that a story needs: ``a op b = value``.

    Attributes:
        a, b: ``("given", number)`` or ``("relation", index of an earlier relation)``.
        op: the operation.
        value: its result.
        person: whose quantity it is.
        role: which kind of sentence states it: a person's total, the size of groups, or the
            total of two people.
        tempting: whether the wording tempts the inverse operation.
    """

    a: tuple[str, int]
    op: Operation
    b: tuple[str, int]
    value: int
    person: str
    role: Literal["total", "groups", "together"]
    tempting: bool


class World(NamedTuple):
    """What the story means: the relations in order, and the numbers that do not matter."""

    relations: tuple[Relation, ...]
    distractors: tuple[int, ...]
    items: str

    @classmethod
    def of(cls, problem: Problem) -> World:
        """The meaning that `make_problem` stored with a problem.

        Raises:
            UnknownName: if the problem is not of this world.
        """
        stored: Any = problem.meta.get("world")
        if not isinstance(stored, dict):
            raise UnknownName("key of Problem.meta", "world", problem.meta)
        relations = tuple(
            Relation((a[0], int(a[1])), op, (b[0], int(b[1])), int(value), person, role, tempting)
            for a, op, b, value, person, role, tempting in stored["relations"]
        )
        return cls(relations, tuple(stored["distractors"]), stored["items"])

    def operands(self, relation: Relation) -> tuple[int, int]:
        """The two numbers of a relation."""

        def number(ref: tuple[str, int]) -> int:
            return ref[1] if ref[0] == "given" else self.relations[ref[1]].value

        return number(relation.a), number(relation.b)

    @property
    def answer(self) -> int:
        """The number that the question asks for."""
        return self.relations[-1].value


def compute(a: int, op: Operation, b: int) -> int | None:
    """``a op b``, or None where a division is not exact or divides by zero."""
    if op == "+":
        return a + b
    if op == "-":
        return a - b
    if op == "*":
        return a * b
    return a // b if b != 0 and a % b == 0 else None


class _Story:
    """A story while it is told."""

    def __init__(self, rng: random.Random, unseen: bool):
        self.rng, self.unseen = rng, unseen
        # In the order in which the story brings them in. A name is new, or it is known: so a
        # reader can tell who acts on whom.
        self.people = iter(rng.sample(phrases.NAMES, len(phrases.NAMES)))
        self.items = rng.choice(phrases.ITEMS)
        self.first = self.person = next(self.people)
        self.sentences: list[str] = []
        self.relations: list[Relation] = []
        self.used: set[int] = set()
        self.total: tuple[str, int] = ("given", 0)
        self.value = 0
        self.before: tuple[str, tuple[str, int], int] | None = None
        self.distractors: list[int] = []

    def number(self, low: int, high: int) -> int | None:
        """A fresh number, so that numbers tell quantities apart; None where there is none."""
        fresh = [n for n in range(low, high + 1) if n not in self.used]
        return self.rng.choice(fresh) if fresh else None

    def tell(self, wording: Wording, **words: object) -> None:
        sentences = wording.known + wording.unseen if self.unseen else wording.known
        self.sentences.append(self.rng.choice(sentences).format(items=self.items, **words))

    def relate(
        self,
        a: tuple[str, int],
        op: Operation,
        b: tuple[str, int],
        value: int,
        role: Literal["total", "groups", "together"] = "total",
        tempting: bool = False,
    ) -> tuple[str, int]:
        self.relations.append(Relation(a, op, b, value, self.person, role, tempting))
        return ("relation", len(self.relations) - 1)

    def change(self, op: Operation, n: int, tempting: bool) -> None:
        """The running total becomes ``total op n``."""
        result = compute(self.value, op, n)
        assert result is not None
        self.used.add(n)
        self.total = self.relate(self.total, op, ("given", n), result, tempting=tempting)
        self.value = result


def _start(story: _Story) -> None:
    n = story.rng.randint(4, 30)
    story.value, story.total = n, ("given", n)
    story.used.add(n)
    story.tell(phrases.START, p=story.person, n=n)


def _add_or_take(story: _Story) -> bool:
    gain = story.rng.random() < 0.5
    tempting = story.rng.random() < 0.4
    n = story.number(2, min(25, LARGEST - story.value) if gain else min(25, story.value - 2))
    if n is None:
        return False
    wording = {
        (True, False): phrases.GAIN,
        (True, True): phrases.TEMPTING_GAIN,
        (False, False): phrases.LOSS,
        (False, True): phrases.TEMPTING_LOSS,
    }[gain, tempting]
    story.tell(wording, p=story.person, q=next(story.people), n=n)
    story.change("+" if gain else "-", n, tempting)
    return True


def _groups(story: _Story) -> bool:
    gain = story.rng.random() < 0.5
    room = LARGEST - story.value if gain else story.value - 2
    pairs = [
        (k, n)
        for k in range(2, 8)
        for n in range(2, 10)
        if k != n and k * n <= room and k not in story.used and n not in story.used
    ]
    if not pairs:
        return False
    k, n = story.rng.choice(pairs)
    story.used |= {k, n}
    story.tell(phrases.GAIN_GROUPS if gain else phrases.LOSS_GROUPS, p=story.person, n=n, k=k)
    size = story.relate(("given", k), "*", ("given", n), k * n, role="groups")
    op: Operation = "+" if gain else "-"
    story.value = story.value + k * n if gain else story.value - k * n
    story.total = story.relate(story.total, op, size, story.value)
    return True


def _scale_or_share(story: _Story) -> bool:
    scale = story.rng.random() < 0.5
    factors = [
        k
        for k in range(2, 6)
        if k not in story.used
        and (story.value * k <= LARGEST if scale else story.value % k == 0 and story.value > k)
    ]
    if not factors:
        return False
    k = story.rng.choice(factors)
    story.tell(phrases.SCALE if scale else phrases.SHARE, p=story.person, k=k)
    story.change("*" if scale else "/", k, tempting=False)
    return True


def _compare(story: _Story) -> bool:
    """Somebody else's quantity, told from the one or the other side; the story goes on there."""
    tempting = story.rng.random() < 0.5
    op: Operation = story.rng.choice(("+", "-", "+", "-", "*", "/"))
    if op in "+-":
        n = story.number(2, min(20, LARGEST - story.value if op == "+" else story.value - 2))
    else:
        n = story.number(2, 5)
        exact = None if n is None else compute(story.value, op, n)
        if exact is None or not 1 < exact <= LARGEST:
            return False
    if n is None or (op == "*" and tempting) or (op == "/" and not tempting):
        return False
    wording = {
        ("+", False): phrases.MORE_THAN,
        ("-", False): phrases.FEWER_THAN,
        ("+", True): phrases.TEMPTING_MORE,
        ("-", True): phrases.TEMPTING_FEWER,
        ("*", False): phrases.TIMES_AS_MANY,
        ("/", True): phrases.TEMPTING_SHARE,
    }[op, tempting]
    other = next(story.people)
    story.tell(wording, p=story.person, q=other, n=n, k=n)
    story.before = (story.person, story.total, story.value)
    story.person = other
    story.change(op, n, tempting)
    return True


def _together(story: _Story) -> bool:
    """The last two people's quantities, added; only right after a comparison."""
    if story.before is None or story.before[2] + story.value > LARGEST:
        return False
    person, total, value = story.before
    story.tell(phrases.QUESTION_TOGETHER, p=person, q=story.person)
    story.relate(total, "+", story.total, value + story.value, role="together")
    return True


_EVENTS = (_add_or_take, _groups, _scale_or_share, _compare)


def _distract(story: _Story) -> None:
    """Put up to two facts that do not matter between the others."""
    for _ in range(story.rng.choice((0, 1, 1, 2))):
        n = story.number(2, 30)
        if n is None or any(n == r.value for r in story.relations):
            continue
        story.used.add(n)
        story.distractors.append(n)
        known, unseen = phrases.DISTRACTOR
        sentences = known + unseen if story.unseen else known
        sentence = story.rng.choice(sentences).format(
            p=story.first,
            q=next(story.people),
            n=n,
            other=story.rng.choice(phrases.OTHER_ITEMS),
        )
        # "That is …" points at the sentence before it: nothing may come between.
        places = [
            i
            for i in range(1, len(story.sentences))
            if not story.sentences[i].startswith("That is")
        ]
        story.sentences.insert(story.rng.choice(places), sentence)


def _try_story(rng: random.Random, n_steps: int, unseen: bool) -> _Story | None:
    story = _Story(rng, unseen)
    _start(story)
    asked = False
    for _ in range(40):
        missing = n_steps - len(story.relations)
        if missing == 0:
            break
        if missing == 1 and rng.random() < 0.5 and story.relations and _together(story):
            asked = True
            break
        event = rng.choices(_EVENTS, weights=(5, 2, 2, 4))[0]
        if event is _groups and missing < 2:
            continue
        if event(story) and event is not _compare:
            story.before = None
    if len(story.relations) != n_steps:
        return None
    if not asked:
        story.tell(phrases.QUESTION, p=story.person)
    _distract(story)
    return story


def make_problem(split: Split, index: int, seed: int = 0) -> Problem:
    """The problem number `index` of a split; the same on every machine.

    ``train`` and ``test`` have 2 to 8 relations; ``ood`` has 9 or 10, and half of its sentences
    have wordings that the other splits never use.
    """
    if split not in SPLITS:
        raise UnknownName("split of the embedded world", split, SPLITS)
    rng = random.Random(f"prmkit world 1/{seed}/{split}/{index}")
    while True:
        if split == "ood":
            n_steps = rng.choice(OOD_STEPS)
        else:
            n_steps = rng.choices(list(STEP_WEIGHTS), weights=list(STEP_WEIGHTS.values()))[0]
        story = _try_story(rng, n_steps, unseen=split == "ood")
        if story is not None:
            break
    meta: dict[str, Any] = {
        "world": {
            "relations": [[list(r.a), r.op, list(r.b), *r[3:]] for r in story.relations],
            "distractors": story.distractors,
            "items": story.items,
        }
    }
    return Problem(
        id=f"world-{split}-{seed}-{index}",
        prompt=" ".join(story.sentences),
        answer=str(story.relations[-1].value),
        meta=meta,
    )


MEANINGS = ("nothing", "+", "-", "*", "/", "+ groups", "- groups")
"""What a sentence of a story may do to the quantity that is asked for."""
_SENTENCE = re.compile(r" ?[^.?]*[.?]")
_NUMBER = re.compile(r"\d+")


def sentence_meanings(problem: Problem) -> list[tuple[str, int | None]]:
    """The sentences of a story, which join back to it, with the index of `MEANINGS` of each.

    A sentence without a number, such as the question, has None.
    """
    world = World.of(problem)
    by_number: dict[int, int] = {}
    for index, relation in enumerate(world.relations):
        if relation.role == "groups":
            meaning = MEANINGS.index(f"{world.relations[index + 1].op} groups")
            by_number |= dict.fromkeys(world.operands(relation), meaning)
        elif relation.b[0] == "given":
            by_number[relation.b[1]] = MEANINGS.index(relation.op)
    found: list[tuple[str, int | None]] = []
    for sentence in _SENTENCE.findall(problem.text):
        numbers = [int(n) for n in _NUMBER.findall(sentence)]
        meanings = [by_number[n] for n in numbers if n in by_number]
        found.append((sentence, (meanings or [0])[0] if numbers else None))
    return found


def problems(split: Split, n: int, start: int = 0, seed: int = 0) -> Iterator[Problem]:
    """`n` problems of a split, from number `start` on."""
    for index in range(start, start + n):
        yield make_problem(split, index, seed)
