"""Are problems of a benchmark among those that a model was trained on?

Exact: equal after case, white space and punctuation other than signs of arithmetic are dropped.
Near: many of its runs of words are in one training problem. Problems shorter than a run are
compared exactly alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_WORDS = re.compile(r"\w+|[+*/^<>=]|(?<!\w)-|-(?!\w)")


class Overlap(NamedTuple):
    """A benchmark's problem that was seen in training.

    Attributes:
        problem: its number in what was given.
        training: the number of the training problem.
        share: of its runs of words that are in that one.
        exact: whether the words of both are the same.
    """

    problem: int
    training: int
    share: float
    exact: bool


def words_of(text: str) -> tuple[str, ...]:
    """The words, numbers and signs of arithmetic of a text, lower case."""
    return tuple(_WORDS.findall(text.casefold()))


def _runs(words: Sequence[str], n: int) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def contamination(
    problems: Iterable[str], training: Iterable[str], *, run: int = 8, share: float = 0.5
) -> list[Overlap]:
    """The problems that are, wholly or nearly, among the training problems.

    Args:
        problems: of the benchmark.
        training: what the model was trained on.
        run: words in a run.
        share: from which share of shared runs on a problem counts as seen.

    Returns:
        In the order of the problems, the likest training problem of each that was seen.
    """
    exact: dict[tuple[str, ...], int] = {}
    where: dict[tuple[str, ...], list[int]] = {}
    for number, text in enumerate(training):
        words = words_of(text)
        if words in exact:
            continue
        exact[words] = number
        for of_run in _runs(words, run):
            where.setdefault(of_run, []).append(number)
    found = []
    for index, text in enumerate(problems):
        words = words_of(text)
        if words in exact:
            found.append(Overlap(index, exact[words], 1.0, True))
            continue
        runs = _runs(words, run)
        hits = Counter(number for of_run in runs for number in where.get(of_run, ()))
        if hits:
            number, count = max(hits.items(), key=lambda item: (item[1], -item[0]))
            if count / len(runs) >= share:
                found.append(Overlap(index, number, count / len(runs), False))
    return found
