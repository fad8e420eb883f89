"""What a benchmark is: cases with the truth, and the figures that its protocol asks for."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from prmkit.aggregate import Aggregation
from prmkit.errors import FormatError, InvalidSetting
from prmkit.evaluation.judgements import Equal, Judgement, Rule
from prmkit.evaluation.pool_table import PickSettings
from prmkit.evaluation.statistics import Statistic
from prmkit.formats.base import Row
from prmkit.formats.containers import read_rows
from prmkit.formats.files import said
from prmkit.records import Record, StepLabels, StepScores

if TYPE_CHECKING:
    from prmkit.evaluation.figures import Judged

SUFFIXES = (".json", ".jsonl", ".parquet", ".csv", ".json.gz", ".jsonl.gz", ".csv.gz")


class Case(NamedTuple):
    """One case of a benchmark.

    Attributes:
        id: unique in the benchmark; what a file of scores names.
        record: the solution, with the truth of its steps as labels.
        split: the part of the benchmark that it is of.
        group: what is drawn together by a bootstrap: the problem.
    """

    id: str
    record: Record
    split: str
    group: str


class Content(NamedTuple):
    """What the published data of a split hold.

    Attributes:
        cases: how many there are.
        wrong: how many have a wrong step; None where that is not published.
        digest: see `digest`; None where the data were never at hand.
    """

    cases: int
    wrong: int | None = None
    digest: str | None = None


class DataFile(NamedTuple):
    """A file of a git repository.

    Attributes:
        path: in the repository.
        sha256: of its bytes at the benchmark's revision; None where they were never at hand.
    """

    path: str
    sha256: str | None = None


class Published(NamedTuple):
    """A row of a published table.

    Attributes:
        model: as the table calls it.
        figures: by the names of the benchmark's own figures, as shares of 1.
    """

    model: str
    figures: Mapping[str, float]


class Given(NamedTuple):
    """A judgement from a published file.

    Attributes:
        model: whose it is; None where the file does not say.
        case: the id of the case.
        judgement: what is said of it.
        stamp: when it was said, where a later one takes the place of an earlier one.
    """

    model: str | None
    case: str
    judgement: Judgement
    stamp: str = ""


class Figures(NamedTuple):
    """What a benchmark's protocol gives for one judge.

    Attributes:
        figures: by name, the headline first.
        facts: numbers that are chosen or counted, such as a tuned threshold.
    """

    figures: dict[str, Statistic]
    facts: Mapping[str, float | int | str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What the reader of a benchmark may choose; each default is the benchmark's own way.

    Attributes:
        rule: how scores become verdicts.
        tune_on: the split that a threshold is tuned on and reused from; by default the first.
        aggregation: step scores to one number for a solution.
        picks: how N of the samples of a problem are taken.
    """

    rule: Rule = field(default_factory=Rule)
    tune_on: str | None = None
    aggregation: Aggregation = "min"
    picks: PickSettings = field(default_factory=PickSettings)


Groups = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A benchmark.

    Attributes:
        name: at the command line.
        title: as its authors call it.
        about: one line for the help.
        paper: arXiv id, or where it is described.
        hub: id of its data set on the Hugging Face hub, where there is one.
        revision: the commit of that data set or repository, as 40 hex digits; None only where
            nothing is fetched.
        licence: of the data, as published.
        read: the cases of local files, in order.
        figures: what one judge says of the cases, by the protocol and `equal`, to figures.
        headline: the name of its main figure.
        judgement: a row of a file of results in the benchmark's own format to judgements; None
            for a row of another format.
        read_log: a text file of results, for a benchmark whose results are such.
        equal: what a step is whose score is the threshold itself.
        published: rows of published tables.
        content: of each split; of all together under the empty name, where no more is published.
        perfect: names of figures that are 1 for a judge that is always right; by default the
            headline.
        floor: figures of a judge that gives every step the same high score, on any data.
        published_floor: the same on the published data as a whole.
        repeats: whether the published data name some cases twice; see `repeated`.
        newest_counts: whether of several results of one case the newest counts; by default a
            second one is an error.
        gold: what a perfect judge says; by default that each step is as labelled.
        make: so many problems' cases without any file, where the benchmark can make its own.
        takes: what its protocol has, of ``verdicts`` (by thresholds), ``redundancy``, ``splits`` (a
            threshold may be tuned on one) and ``picks`` (N samples of a problem).
        keeps_unscored: whether cases that are not scored still count in its main figures.
        git: ``owner/name`` of the GitHub repository that its data are fetched from, where the hub
            has none.
        files: of that repository, with the data.
        columns: of the names of its figures, those that a table shows; by default the first six.
        scale: of a table's numbers: 100 for percent.
        digits: after the point of a table's numbers.
    """

    name: str
    title: str
    about: str
    paper: str
    hub: str | None
    revision: str | None
    licence: str
    read: Callable[[Path], list[Case]]
    figures: Callable[[Judged, Protocol], Figures]
    headline: str
    judgement: Callable[[Row, Mapping[str, Case]], list[Given] | None] | None = None
    read_log: Callable[[Path, Mapping[str, Case]], list[Given]] | None = None
    equal: Equal = "right"
    published: tuple[Published, ...] = ()
    content: Mapping[str, Content] = field(default_factory=dict)
    perfect: tuple[str, ...] = ()
    floor: Mapping[str, float] = field(default_factory=dict)
    published_floor: Mapping[str, float] = field(default_factory=dict)
    repeats: bool = False
    newest_counts: bool = False
    gold: Callable[[Case], Judgement] | None = None
    make: Callable[[int | None], list[Case]] | None = None
    takes: frozenset[str] = frozenset({"verdicts"})
    keeps_unscored: bool = False
    git: str | None = None
    files: tuple[DataFile, ...] = ()
    columns: Callable[[Sequence[str]], list[str]] | None = None
    scale: float = 100.0
    digits: int = 1

    def shown(self, names: Sequence[str]) -> list[str]:
        """Of the names of its figures, those that a table shows."""
        return self.columns(names) if self.columns else list(names)[:6]

    def right_judgement(self, case: Case) -> Judgement:
        """What a judge that is always right says of a case."""
        return self.gold(case) if self.gold else gold_scores(case)


def gold_scores(case: Case) -> Judgement:
    """Scores that are the labels: 1 for right and neutral steps, 0 for wrong and open ones."""
    labels = case.record.labels
    n = len(case.record.trajectory.steps)
    values = (None,) * n if labels is None else labels.values
    worst = -1 if labels is not None and labels.kind == "human" else 0
    scores = tuple(float(v is not None and v > worst) for v in values)
    return Judgement(StepScores(values=scores, semantics="correctness", model="gold"))


def constant_scores(case: Case, value: float) -> Judgement:
    """The same score for every step."""
    values = (value,) * len(case.record.trajectory.steps)
    return Judgement(StepScores(values=values, semantics="correctness", model="constant"))


def group_numbers(cases: Sequence[Case]) -> Groups:
    """[N] the number of each case's group, in the order of their coming."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(c.group, len(numbers)) for c in cases], dtype=np.int64)


UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    RecursionError,
)
"""What values of unexpected types and sizes raise where a row is read."""


def data_files(path: Path, names: Iterable[str] = ()) -> list[Path]:
    """The data files under a path, in order of name.

    Args:
        path: one file, or a folder.
        names: the stems that count, in this order; by default any.

    Raises:
        FormatError: if there is none.
    """
    if path.is_file():
        return [path]
    wanted = list(names)
    if path.is_dir():
        found = [f for f in sorted(path.rglob("*")) if f.name.endswith(SUFFIXES) and f.is_file()]
        if wanted:
            found = [f for name in wanted for f in found if f.name.split(".")[0] == name]
        if found:
            return found
    expected = f" named {', '.join(wanted)}" if wanted else ""
    raise FormatError(
        f"no data is there; expected a file or a folder with files{expected} "
        f"({', '.join(SUFFIXES)})",
        path,
    )


def good_rows(path: Path) -> Iterator[Row]:
    """The rows of a file; the first that is no JSON object is an error."""
    for row in read_rows(path):
        if isinstance(row, FormatError):
            raise row
        yield row


def read_cases(
    files: Iterable[Path], read: Callable[[Row], Iterable[Case]], *, repeats: bool = False
) -> list[Case]:
    """The cases of files, each id once.

    Args:
        files: in order.
        read: a row to its cases.
        repeats: let the second case of an id be `repeated`; by default it is an error.

    Raises:
        FormatError: with file and line.
    """
    cases: dict[str, Case] = {}
    where: dict[str, str] = {}
    for file in files:
        for row in good_rows(file):
            try:
                for case in read(row):
                    if repeats and case.id in cases:
                        case = case._replace(id=repeated(case.id))
                    if case.id not in cases:
                        cases[case.id] = case
                        where[case.id] = f"{file.name}:{row.number}"
                    else:
                        raise FormatError(
                            f"the id {case.id!r} is there twice, first in {where[case.id]}; ids "
                            "must be unique, since scores are found by them"
                        )
            except FormatError as error:
                raise FormatError(error.message, file, row.number) from None
            except ValidationError as error:
                raise FormatError(said(error), file, row.number) from None
            except UNREADABLE as error:
                why = f"this row cannot be read ({type(error).__name__}: {error})"
                raise FormatError(why, file, row.number) from None
    if not cases:
        raise FormatError("there is no case", next(iter(files), None))
    return list(cases.values())


_WHOLE = re.compile(r"-?\d{1,9}", re.ASCII)
_REPEATED = "#2"


def repeated(case: str) -> str:
    """The id of the second case that has an id."""
    return case + _REPEATED


def is_repeated(case: Case) -> bool:
    """Whether it is the second case that has its id."""
    return case.id.endswith(_REPEATED)


def first_error_labels(first_error: int | None, n_steps: int, source: str) -> StepLabels:
    """Labels where the first wrong step is known, 0-based: those after it are open."""
    values = tuple(
        None if first_error is not None and i > first_error else float(i != first_error)
        for i in range(n_steps)
    )
    return StepLabels(values=values, kind="hard", source=source)


def step_number(given: object, n_steps: int, key: str) -> int:
    """A step counted from 1, given as a number or as text, to its 0-based index.

    Raises:
        FormatError: if it is no number, or there is no such step.
    """
    text = str(given).strip()
    if isinstance(given, bool) or not _WHOLE.fullmatch(text):
        raise FormatError(f"{key!r} is {given!r}; expected the number of a step, counted from 1")
    number = int(text)
    if not 1 <= number <= n_steps:
        raise FormatError(
            f"{key!r} is {given!r}; steps are counted from 1, and there are {n_steps}"
        )
    return number - 1


def digest(cases: Iterable[Case]) -> str:
    """A SHA-256 of what is judged and of the truth, independent of the order of the cases."""
    lines = []
    for case in cases:
        record = case.record
        labels = record.labels
        told = [
            case.id,
            record.trajectory.problem.text,
            [step.text for step in record.trajectory.steps],
            None if labels is None else list(labels.values),
            record.trajectory.correct,
            record.trajectory.answer,
            [record.meta.get(key) for key in ("solution_correct", "mistake_agent")],
        ]
        lines.append(json.dumps(told, ensure_ascii=True, sort_keys=True))
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def check_content(benchmark: Benchmark, cases: Sequence[Case]) -> list[str]:
    """In what the data differ from the published ones, in words; empty where in nothing."""
    differences = []
    by_split: dict[str, list[Case]] = {}
    for case in cases:
        by_split.setdefault("" if "" in benchmark.content else case.split, []).append(case)
    for split, of_split in by_split.items():
        known = benchmark.content.get(split)
        name = f"{split}: " if split else ""
        wrong = sum(not is_right(case) for case in of_split)
        if known is None:
            if benchmark.content:
                differences.append(f"{split!r} is no split of the published data")
        elif len(of_split) != known.cases:
            differences.append(f"{name}{len(of_split)} cases; {known.cases} are published")
        elif known.wrong is not None and wrong != known.wrong:
            differences.append(f"{name}{wrong} with a wrong step; {known.wrong} are published")
        elif known.digest is not None and digest(of_split) != known.digest:
            differences.append(f"{name}texts or labels differ from the published ones")
    return differences


def is_right(case: Case) -> bool:
    """Whether a solution has no wrong step, by its labels or by what its source says."""
    told = case.record.meta.get("solution_correct")
    if isinstance(told, bool):
        return told
    labels = case.record.labels
    return labels is None or labels.first_error is None


def splits(cases: Sequence[Case]) -> list[str]:
    """The splits, in the order of their coming."""
    return list(dict.fromkeys(case.split for case in cases))


def known_split(cases: Sequence[Case], split: str) -> str:
    """A split that is there.

    Raises:
        InvalidSetting: if it is not.
    """
    if split not in splits(cases):
        raise InvalidSetting(f"there is no split {split!r}; there are {', '.join(splits(cases))}")
    return split
