"""Files of scores and verdicts, in any published form, to judgements of a benchmark's cases.

A row is read in the benchmark's own form where it has one; as a line of a run's ``scores.jsonl``;
as a record of prmkit with scores; or as an object with the case's id and one of

    "scores"        a number per step, or an object of such lists by model
    "labels"        1, 0, -1 or null per step
    "first_error"   the 0-based first wrong step; -1 or null for none

Scores outside of [0, 1] need "semantics", which says what they mean. Where a row has labels beside
scores, both are kept.

Whatever does not fit is an error with file and line: another number of scores than steps, a case
that the benchmark has not, a case that is there twice.
"""

from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from prmkit.errors import FormatError
from prmkit.evaluation.cases import (
    SUFFIXES,
    UNREADABLE,
    Benchmark,
    Case,
    Given,
    good_rows,
    repeated,
)
from prmkit.evaluation.judgements import (
    Judgement,
    Verdict,
    from_json,
    verdict_of_index,
    verdict_of_steps,
)
from prmkit.formats.base import Row
from prmkit.formats.files import said
from prmkit.records import Record, Semantics, StepScores, Unscored

_LONGEST = 80
_PARTS = ("_eval_results", "_error", "_correct", "_alg_generated", "_handcrafted")
_IDS = ("id", "case", "idx", "uuid", "problem_id", "case_id")

Judges = dict[str, dict[str, Judgement]]
"""Judgements by model, then by case."""


def read_scores(path: Path, benchmark: Benchmark, cases: Sequence[Case]) -> Judges:
    """The judgements of a file, or of all files of a folder.

    A judge is named by the rows, where they name one or more; in a folder of folders by its
    folder, unless a file holds several judges; else by the file.

    Raises:
        FormatError: with file and line.
    """
    known = {case.id: case for case in cases}
    reader = _Reader(benchmark, known)
    judges: Judges = {}
    stamps: dict[tuple[str, str], str] = {}
    for file in _files(path, benchmark):
        rows = list(reader.given(file))
        several = len({given.model for _, given in rows}) > 1
        inside = file.relative_to(path).parts if path.is_dir() else (file.name,)
        of_file = inside[0].strip() if len(inside) > 1 else _named(file, cases)
        for number, given in rows:
            # In folders of folders a row's own word is too often the same for several judges.
            by_row = given.model if several or len(inside) == 1 else None
            try:
                model = clean_name(of_file if by_row is None else by_row)
            except FormatError as error:
                raise FormatError(error.message, file, number) from None
            of_model = judges.setdefault(model, {})
            if given.case not in known:
                raise FormatError(_unknown(given.case, benchmark, cases), file, number)
            if given.case in of_model:
                if not benchmark.newest_counts:
                    why = f"the case {given.case!r} is there twice for {model!r}"
                    raise FormatError(why, file, number)
                if given.stamp < stamps[model, given.case]:
                    continue
            of_model[given.case] = given.judgement
            stamps[model, given.case] = given.stamp
    if not judges:
        raise FormatError("there is no score of steps", path)
    return judges


def _named(file: Path, cases: Sequence[Case]) -> str:
    """A judge by its file's name, without the parts of it that say which cases it holds."""
    stem = file.name.split(".json")[0].removesuffix(".txt").removesuffix(".csv")
    for part in _PARTS:
        stem = stem.removesuffix(part)
    of_split = {case.split for case in cases} | {""}
    return stem if stem not in of_split else file.parent.name


def stored_scores(cases: Sequence[Case]) -> Judges:
    """The scores that the cases bring with them, by model."""
    judges: Judges = {}
    for case in cases:
        for scored in case.record.scores:
            judges.setdefault(scored.model or "stored", {})[case.id] = Judgement(scored)
    return judges


def in_order(
    judges: Mapping[str, Mapping[str, Judgement]], cases: Sequence[Case]
) -> dict[str, list[Judgement]]:
    """Judgements in the order of the cases; those that are missing are not scored."""
    missing = Judgement(Unscored(reason="the file of scores does not hold this case"))
    return {
        model: [of_model.get(case.id, missing) for case in cases]
        for model, of_model in judges.items()
    }


def _files(path: Path, benchmark: Benchmark) -> list[Path]:
    endings = (*SUFFIXES, *((".txt",) if benchmark.read_log else ()))
    if path.is_file():
        return [path]
    found = [
        f
        for f in sorted(path.rglob("*"))
        # Folders such as _raw hold what judges wrote, not what was read from it.
        if f.is_file()
        and f.name.endswith(endings)
        and not any(part.startswith(("_", ".")) for part in f.relative_to(path).parts)
    ]
    if not found:
        raise FormatError(f"no file of scores is there ({', '.join(endings)})", path)
    return found


def _unknown(case: str, benchmark: Benchmark, cases: Sequence[Case]) -> str:
    some = ", ".join(repr(c.id) for c in cases[:2])
    return (
        f"{benchmark.title} has no case {case!r} here; its ids are like {some}. Are these scores "
        "of other data, or of a part that is not read?"
    )


class _Reader:
    """Reads the rows of one or more files of scores."""

    def __init__(self, benchmark: Benchmark, known: Mapping[str, Case]):
        self._benchmark, self._known = benchmark, known
        self._by_text: dict[tuple[str, tuple[str, ...]], deque[str]] | None = None

    def given(self, file: Path) -> Iterable[tuple[int | None, Given]]:
        """Numbers of rows, with what they say."""
        if file.name.endswith(".txt") and self._benchmark.read_log:
            for given in self._benchmark.read_log(file, self._known):
                yield None, given
            return
        self._by_text = None
        seen: set[tuple[str | None, str]] = set()
        for row in good_rows(file):
            try:
                found = self._row(row, seen)
            except FormatError as error:
                raise FormatError(error.message, file, row.number) from None
            except ValidationError as error:
                why = f"this is no row of scores: {said(error)}"
                raise FormatError(why, file, row.number) from None
            except UNREADABLE as error:
                why = f"this is no row of scores ({type(error).__name__}: {error})"
                raise FormatError(why, file, row.number) from None
            for given in found:
                seen.add((given.model, given.case))
                yield row.number, given

    def _row(self, row: Row, seen: set[tuple[str | None, str]]) -> list[Given]:
        data = row.data
        if not isinstance(data.get("model"), str | None):
            raise FormatError(f"'model' is {data['model']!r:.60}; expected a name")
        if "trajectory" in data and "version" in data:
            return self._record(data)
        if "case" in data and {"scored", "verdict"} & data.keys():
            return [self._own(data)]
        second = self._second(data)
        if second is None:
            return self._read(row, self._known)
        # The benchmark's data name this case twice: the judge's second row is of the second one.
        try:
            found = self._read(row, self._known)
        except FormatError:
            found = []
        if found and not any((g.model, g.case) in seen for g in found):
            return found
        again = self._read(row, {**self._known, second.id.removesuffix("#2"): second})
        return [given._replace(case=second.id) for given in again]

    def _second(self, data: Mapping[str, Any]) -> Case | None:
        """The repeated case with the id that a row names."""
        if not self._benchmark.repeats:
            return None
        inner = data["results"] if isinstance(data.get("results"), dict) else data
        name = next((str(inner[k]) for k in _IDS if k in inner), "")
        return self._known.get(repeated(name))

    def _read(self, row: Row, known: Mapping[str, Case]) -> list[Given]:
        if self._benchmark.judgement is not None:
            found = self._benchmark.judgement(row, known)
            if found is not None:
                return found
        return self._plain(row.data, known)

    def _own(self, data: Mapping[str, Any]) -> Given:
        """A line of a run's own scores."""
        name, judgement = str(data["case"]), from_json(data)
        case = self._known.get(name)
        if case is not None:
            n = len(case.record.trajectory.steps)
            scores, verdict = judgement.scores, judgement.verdict
            lengths = {
                "scores": len(scores.values) if isinstance(scores, StepScores) else n,
                "labels": len(verdict.steps) if verdict else n,
                "redundant": len(verdict.redundant) if verdict and verdict.redundant else n,
                "redundancy": n if judgement.redundancy is None else len(judgement.redundancy),
            }
            for what, length in lengths.items():
                if length != n:
                    raise FormatError(f"{length} {what} for {name!r}, which has {n} steps")
        return Given(data.get("model"), name, judgement)

    def _record(self, data: Mapping[str, Any]) -> list[Given]:
        """A record of prmkit: its case is found by the question and the steps."""
        record = Record.model_validate(data)
        if not record.scores:
            raise FormatError("the record has no scores; prm score puts them into it")
        if self._by_text is None:
            self._by_text = {}
            for case in self._known.values():
                self._by_text.setdefault(_texts(case.record), deque()).append(case.id)
        waiting = self._by_text.get(_texts(record))
        if not waiting:
            raise FormatError(
                f"no case has the question and the steps of this solution of "
                f"{record.trajectory.problem.id!r}"
            )
        # Equal solutions of a problem are one case each, in order.
        name = waiting.popleft()
        return [Given(s.model, name, Judgement(s)) for s in record.scores]

    def _plain(self, data: Mapping[str, Any], known: Mapping[str, Case]) -> list[Given]:
        key = next((k for k in _IDS if k in data), None)
        if key is None:
            raise FormatError(f"a row of scores needs the id of its case: one of {', '.join(_IDS)}")
        name = str(data[key])
        model = data.get("model")
        case = known.get(name)
        if case is None:
            return [Given(model, name, Judgement(None))]
        n = len(case.record.trajectory.steps)
        if isinstance(data.get("scores"), dict):
            return [
                Given(str(m), name, Judgement(_scores(v, str(m), name, n, data.get("semantics"))))
                for m, v in data["scores"].items()
            ]
        given = [k for k in ("scores", "labels", "first_error") if k in data]
        if not given:
            raise FormatError("a row of scores needs 'scores', 'labels' or 'first_error'")
        scores = None
        if "scores" in data:
            told = data.get("semantics")
            scores = _scores(data["scores"], str(model or "scores"), name, n, told)
        verdict = _labels(data["labels"], name, n) if "labels" in data else None
        if "first_error" in data:
            by_index = _first_error(data["first_error"], n)
            if verdict is not None and verdict.first_error != by_index.first_error:
                raise FormatError(
                    f"'labels' and 'first_error' of {name!r} name different first wrong steps: "
                    f"{verdict.first_error} and {by_index.first_error}"
                )
            verdict = verdict or by_index
        return [Given(model, name, Judgement(scores, verdict))]


def _labels(labels: object, name: str, n: int) -> Verdict:
    if not isinstance(labels, list) or len(labels) != n:
        raise FormatError(f"'labels' is {labels!r:.60}; {name!r} has {n} steps")
    if any(v not in (-1, 0, 1, None) or isinstance(v, bool) for v in labels):
        raise FormatError(
            f"'labels' is {labels!r:.60}; each is 1 (right), 0 (neutral), -1 (wrong) or null"
        )
    return verdict_of_steps([None if v is None else int(v) for v in labels])


def _first_error(index: object, n: int) -> Verdict:
    if index is not None and (not isinstance(index, int) or isinstance(index, bool)):
        raise FormatError(f"'first_error' is {index!r}; expected an index, -1 or null")
    if index is not None and not -1 <= index < n:
        raise FormatError(
            f"'first_error' is {index}; with {n} steps it is from 0 to {n - 1}, or -1"
        )
    return verdict_of_index(None if index is None or index < 0 else index, n)


def _texts(record: Record) -> tuple[str, tuple[str, ...]]:
    trajectory = record.trajectory
    return trajectory.problem.text, tuple(step.text for step in trajectory.steps)


def _scores(values: object, model: str, name: str, n: int, semantics: object = None) -> StepScores:
    if not isinstance(values, list) or not all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in values
    ):
        raise FormatError(f"'scores' is {values!r:.60}; expected a number per step")
    if len(values) != n:
        raise FormatError(f"{len(values)} scores for {name!r}, which has {n} steps")
    numbers = tuple(map(float, values))
    if semantics is None:
        outside = next((v for v in numbers if not 0 <= v <= 1), None)
        if outside is not None:
            raise FormatError(
                f"a score is {outside!r}, outside of [0, 1]; say in each row what scores mean, "
                f"with 'semantics': one of {', '.join(get_args(Semantics))}"
            )
        semantics = "value"
    return StepScores.model_validate({"values": numbers, "semantics": semantics, "model": model})


def clean_name(text: str) -> str:
    """A judge's name as tables and pages may show it.

    Characters that control a terminal or turn the direction of writing are dropped.

    Raises:
        FormatError: if nothing is left of it.
    """
    shown = "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cs"))
    shown = " ".join(shown.split())[:_LONGEST]
    if not shown:
        raise FormatError(f"the name of a judge is {text!r}; expected some letters")
    return shown
