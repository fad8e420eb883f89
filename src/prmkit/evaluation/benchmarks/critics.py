"""Result files of critics and of ReasonEval, which several benchmarks share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from prmkit.errors import FormatError
from prmkit.evaluation.cases import Case, Given
from prmkit.evaluation.judgements import RIGHT, WRONG, Judgement, Verdict
from prmkit.formats.base import Row
from prmkit.records import StepScores

_STEP = re.compile(r"(?:step\s+)?(\d+)", re.IGNORECASE | re.ASCII)


def judged_row(data: Mapping[str, Any], case: str, cases: Mapping[str, Case]) -> list[Given] | None:
    """A row of MR-GSM8K's or Mr-Ben's results: a word, the first wrong step, perhaps a reason.

    What cannot be read is a miss, as in the official scripts; a reason counts where it was
    accepted by somebody.
    """
    key = next((k for k in data if k.endswith("_eval_output") or k == "Evaluation_Result"), None)
    flat = {"correctness_pred", "error_step_pred"} <= data.keys()
    if key is None and not flat:
        return None
    said = data if key is None else data[key]
    if not isinstance(said, dict):
        raise FormatError(f"{key!r} is {said!r:.60}; expected an object")
    model = said.get("evaluated_model") or (key.removesuffix("_eval_output") if key else None)
    if key == "Evaluation_Result" and "evaluated_model" not in said:
        model = None
    known = cases.get(case)
    if known is None:
        return [Given(model, case, Judgement(None))]
    word = str(said.get("solution_correctness", said.get("correctness_pred", ""))).strip().lower()
    right = {"correct": True, "wrong": False, "incorrect": False}.get(word)
    step = str(said.get("first_error_step", said.get("error_step_pred", ""))).strip()
    n = len(known.record.trajectory.steps)
    index = _step(step, known) if right is False else None
    verdict = Verdict(_labels(right, index, n), right, index, reason=_reason(data))
    return [Given(model, case, Judgement(None, verdict))]


def _step(text: str, known: Case) -> int | None:
    """``5``, ``Step 5``: the step with that number; anything else is none, as officially.

    A number that no step has is a place behind the last one, which is never right.
    """
    match = _STEP.fullmatch(text)
    if match is None:
        return None
    n = len(known.record.trajectory.steps)
    numbers = known.record.meta.get("numbers")
    printed = numbers if isinstance(numbers, list) else list(range(1, n + 1))
    number = int(match[1])
    return printed.index(number) if number in printed else n


def _labels(right: bool | None, index: int | None, n: int) -> tuple[int | None, ...]:
    if right is True:
        return (RIGHT,) * n
    if index is None or not 0 <= index < n:
        return (None,) * n
    return tuple(RIGHT if i < index else WRONG if i == index else None for i in range(n))


def _reason(data: Mapping[str, Any]) -> bool | None:
    analysis = data.get("Error_Reason_Correctness_Analysis")
    word = data.get("error_reason_correctness")
    if isinstance(analysis, dict):
        word = analysis.get("error_reason_correctness")
    if word is None:
        return None
    # "incorrect" holds "correct": whole words only.
    return str(word).strip().lower().strip(".*'\"") == "correct"


_DIGITS = re.compile(r"\d+", re.ASCII)
_SOLUTION = {"correct": True, "wrong": False, "absent": True, "present": False}


def reasoneval_critic(
    data: Mapping[str, Any], case: str, cases: Mapping[str, Case]
) -> list[Given] | None:
    """A row of ReasonEval's results of a chat model, by the rules of its evaluator.

    Of wrong steps the first number in the text counts, and one that is not there leaves all steps
    right; of redundant ones ("Present", "Absent") every number does.
    """
    if not {"correctness_pred", "error_step_pred"} <= data.keys():
        return None
    known = cases.get(case)
    if known is None:
        return [Given(None, case, Judgement(None))]
    word = str(data["correctness_pred"])
    # "Incorrect" is none of the words that count.
    right = _SOLUTION.get(word.lower()) if word in (word.lower(), word.capitalize()) else None
    numbers = [int(n) for n in _DIGITS.findall(str(data["error_step_pred"]))]
    n = len(known.record.trajectory.steps)
    if known.split == "redundant":
        redundant = tuple(i + 1 in numbers for i in range(n))
        return [Given(None, case, Judgement(None, Verdict((None,) * n, right, None, redundant)))]
    index = numbers[0] - 1 if numbers and word.lower() != "correct" else None
    if index is None or not 0 <= index < n:
        steps: tuple[int | None, ...] = (RIGHT,) * n
        index = None
    else:
        steps = _labels(False, index, n)
    return [Given(None, case, Judgement(None, Verdict(steps, right, index)))]


def reasoneval_row(row: Row, case: str, cases: Mapping[str, Case]) -> list[Given]:
    """A row of ReasonEval's results: scores, or triples of invalid, redundant and positive.

    Where a step has several lines, as in MR-MATH, each line has a score: the lowest counts.
    """
    known = cases.get(case)
    if known is None:
        return [Given(None, case, Judgement(None))]
    scores = row.data["scores"]
    if isinstance(scores, dict):
        # Of several models; those that score whole solutions alone say nothing of steps.
        return [
            Given(model, case, _scored(of_model, case, known))
            for model, of_model in scores.items()
            if isinstance(of_model, list)
        ]
    if isinstance(scores, int | float):
        # ROSCOE scores whole solutions: there is nothing to say of steps.
        return []
    return [Given(None, case, _scored(scores, case, known))]


def _scored(scores: object, case: str, known: Case) -> Judgement:
    if not isinstance(scores, list) or not scores:
        raise FormatError(f"'scores' is {scores!r:.60}; expected a score or a triple per step")
    lines = known.record.meta.get("lines")
    counts = lines if isinstance(lines, list) else [1] * len(known.record.trajectory.steps)
    if len(scores) == len(counts):
        counts = [1] * len(counts)
    if len(scores) != sum(c for c in counts if isinstance(c, int)):
        raise FormatError(
            f"{len(scores)} scores for {case!r}, which has {len(counts)} steps"
            + (f" of {sum(c for c in counts if isinstance(c, int))} lines" if lines else "")
        )
    triples = isinstance(scores[0], list)
    validity, redundancy = [], []
    for item in scores:
        if triples != isinstance(item, list) or (triples and len(item) != 3):
            raise FormatError(f"a score is {item!r:.60}; expected a number or a triple, all alike")
        # Rounding takes sums of probabilities a little above 1.
        validity.append(min(float(item[1]) + float(item[2]), 1.0) if triples else float(item))
        redundancy.append(float(item[1]) if triples else 0.0)
    values, redundant, at = [], [], 0
    for count in counts:
        assert isinstance(count, int)
        values.append(min(validity[at : at + count]))
        redundant.append(max(redundancy[at : at + count]))
        at += count
    given = StepScores(values=tuple(values), semantics="value", model="scores")
    return Judgement(given, None, tuple(redundant) if triples else None)
