"""ProcessBench: find the first wrong step of 3,400 solutions of four data sets.

    paper      arXiv:2412.06559
    data       Qwen/ProcessBench on the hub; git QwenLM/ProcessBench, commit 2f2fd8a
    revision   84129ea839d654553ba3065b823af01d9e36be46, with the files of git
    licence    Apache-2.0 on the hub, none stated in git; for evaluation
    published  Tables 3, 6 and 8 of the paper; GenPRM, arXiv:2504.00891, Table 6; R-PRM's README

The next commit on the hub, 3bdcd5371ed567559a78f559c01c13a6deee7604 of 27 December 2024, mends an
annotation of MATH: ``--revision`` takes it, and the content check then tells that it differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from prmkit.errors import FormatError
from prmkit.evaluation.benchmarks import published
from prmkit.evaluation.cases import (
    Benchmark,
    Case,
    Content,
    Figures,
    Given,
    Protocol,
    data_files,
    is_right,
    known_split,
    read_cases,
    splits,
)
from prmkit.evaluation.figures import (
    Judged,
    average,
    first_error_statistics,
    true_first_error,
    with_strict,
)
from prmkit.evaluation.judgements import (
    NATURAL_THRESHOLD,
    Judgement,
    Rule,
    Verdict,
    decide,
    verdict_of_index,
)
from prmkit.evaluation.statistics import Statistic, Sums
from prmkit.formats import processbench
from prmkit.formats.base import ReadSettings, Row, need
from prmkit.records import StepScores

SPLITS = ("gsm8k", "math", "olympiadbench", "omnimath")
CONTENT = {
    "gsm8k": Content(
        400, 207, digest="c42984da8b23eed0daf6d22a3d65b7c689ba326417ef560169a90834d1cc9160"
    ),
    "math": Content(
        1000, 594, digest="0c0781d5233cd7c39aeab020a407b6e32b6ad2cc730b521cfe638dfb020f9fc2"
    ),
    "olympiadbench": Content(1000, 661),
    "omnimath": Content(1000, 759),
}


def read(path: Path) -> list[Case]:
    """The cases of one split's file, or of a folder with files named by the splits."""
    files = data_files(path, SPLITS if path.is_dir() else ())

    def cases(row: Row) -> list[Case]:
        need(row.data, "id", str)
        (record,) = processbench.FORMAT.read(row, ReadSettings())
        problem = record.trajectory.problem
        stem = problem.id.rpartition("-")[0]
        split = stem if stem in SPLITS else row.path.name.split(".")[0]
        return [Case(problem.id, record, split, problem.text)]

    return read_cases(files, cases)


def judgement(row: Row, cases: Mapping[str, Case]) -> list[Given] | None:
    """Rows of the official critics (a prediction), of R-PRM and of GenPRM (a score per step)."""
    data = row.data
    key = next((k for k in ("responses", "rewards") if k in data), None)
    if not isinstance(data.get("id"), str) or (key is None and "prediction" not in data):
        return None
    case = cases.get(data["id"])
    if case is None:
        return [Given(None, data["id"], Judgement(None))]
    n = len(case.record.trajectory.steps)
    if key is not None:
        values = need(data, key, list)
        if key == "rewards" and values and isinstance(values[0], list):
            # GenPRM keeps a list for each sampled critique; its own evaluation takes the first.
            values = values[0]
        values = [float(np.mean(v)) if isinstance(v, list) else float(v) for v in values]
        if len(values) != n:
            raise FormatError(f"{len(values)} scores for {case.id!r}, which has {n} steps")
        scores = StepScores(values=tuple(values), semantics="value", model=key)
        return [Given(None, case.id, Judgement(scores))]
    predicted = data["prediction"]
    if predicted is None:
        # What could not be read is a miss in the official evaluator.
        return [Given(None, case.id, Judgement(None, Verdict((None,) * n, None, None)))]
    if not isinstance(predicted, int) or isinstance(predicted, bool) or predicted < -1:
        raise FormatError(
            f"'prediction' is {predicted!r}; expected the 0-based index of the first wrong step, "
            "-1 for none, or null"
        )
    verdict = verdict_of_index(None if predicted < 0 else predicted, n)
    return [Given(None, case.id, Judgement(None, verdict))]


class Threshold(NamedTuple):
    """A threshold that was chosen on data.

    Attributes:
        value: steps with a lower score are wrong.
        f1: on the data it was chosen on.
    """

    value: float
    f1: float


def best_threshold(
    scores: Sequence[Sequence[float]], first_errors: Sequence[int | None], near: float = 0.5
) -> Threshold:
    """The threshold with the highest F1 of first errors; exact, of all real numbers.

    A wrong solution is a hit while the threshold is above the score of its first wrong step and
    not above any before it; a right one while it is not above any. Between such ends nothing
    changes, so one threshold of each interval is tried: its middle.

    Args:
        scores: of the steps of each solution.
        first_errors: 0-based, None for a right solution.
        near: of equally good intervals the one whose middle is nearest to this is taken.
    """
    wrong_from, wrong_to, right_to = [], [], []
    for values, truth in zip(scores, first_errors, strict=True):
        if truth is None:
            right_to.append(min(values, default=np.inf))
        else:
            before = min(values[:truth], default=np.inf)
            if truth < len(values) and values[truth] < before:
                wrong_from.append(values[truth])
                wrong_to.append(before)
    n_right = len(right_to)
    n_wrong = len(scores) - n_right
    ends = np.unique([v for v in (*wrong_from, *wrong_to, *right_to) if np.isfinite(v)])
    if not len(ends):
        return Threshold(near, 0.0)
    middles = np.concatenate([[ends[0]], (ends[:-1] + ends[1:]) / 2, [ends[-1] + 1]])
    starts, stops, rights = np.sort(wrong_from), np.sort(wrong_to), np.sort(right_to)
    found = np.searchsorted(starts, middles, "left") - np.searchsorted(stops, middles, "left")
    kept = n_right - np.searchsorted(rights, middles, "left")
    a, b = found / max(n_wrong, 1), kept / max(n_right, 1)
    f1 = np.divide(2 * a * b, a + b, out=np.zeros(len(middles)), where=a * b > 0)
    best = np.flatnonzero(f1 >= f1.max() - 1e-12)
    chosen = best[np.argmin(np.abs(middles[best] - near))]
    return Threshold(float(middles[chosen]), float(f1[chosen]))


def figures(judged: Judged, protocol: Protocol) -> Figures:
    """F1 of each split and its plain mean; by tuned thresholds too, where there are scores."""
    result: dict[str, Statistic] = with_strict(judged, _by_split)
    facts: dict[str, float | int | str] = {}
    scored = [i for i, j in enumerate(judged.judgements) if isinstance(j.scores, StepScores)]
    if scored:
        tuned, facts = _tuned(judged.where(scored), protocol)
        result |= tuned
    return Figures(result, facts)


def _by_split(judged: Judged) -> dict[str, Statistic]:
    """Figures of each split, and their mean, as it is published; not a mean over cases."""
    parts = {name: first_error_statistics(judged.split(name)) for name in splits(judged.cases)}
    f1 = [part["f1"] for part in parts.values() if part["f1"].n]
    figures: dict[str, Statistic] = {"f1": average([p for p in f1 if isinstance(p, Sums)])}
    for split, part in parts.items():
        figures |= {f"{split}/{name}": statistic for name, statistic in part.items()}
    return figures


def _tuned(
    judged: Judged, protocol: Protocol
) -> tuple[dict[str, Statistic], dict[str, float | int | str]]:
    """F1 with the threshold of one split reused, and with each split's own, an upper bound."""
    names = splits(judged.cases)
    tune_on = known_split(judged.cases, protocol.tune_on or names[0])
    first = judged.judgements[0].scores
    assert isinstance(first, StepScores)
    near = NATURAL_THRESHOLD[first.semantics]
    own = {name: _best(judged.split(name), near) for name in names}
    figures: dict[str, Statistic] = {}
    for kind, thresholds in (
        ("tuned", dict.fromkeys(names, own[tune_on])),
        ("optimum", own),
    ):
        parts: dict[str, dict[str, Statistic]] = {}
        for name in names:
            of_name = judged.split(name)
            rule = Rule(threshold=thresholds[name].value, use="scores")
            verdicts = [decide(j, rule) for j in of_name.judgements]
            parts[name] = first_error_statistics(of_name._replace(verdicts=verdicts))
        f1 = [part["f1"] for part in parts.values() if part["f1"].n]
        figures[f"{kind}/f1"] = average([p for p in f1 if isinstance(p, Sums)])
        for name, part in parts.items():
            figures |= {f"{kind}/{name}/{key}": value for key, value in part.items()}
    facts: dict[str, float | int | str] = {"tuned_on": tune_on, "threshold": own[tune_on].value}
    return figures, facts | {f"threshold/{name}": best.value for name, best in own.items()}


def _best(judged: Judged, near: float) -> Threshold:
    scores = [j.scores.values for j in judged.judgements if isinstance(j.scores, StepScores)]
    truth = [None if is_right(c) else true_first_error(c) for c in judged.cases]
    return best_threshold(scores, truth, near)


BENCHMARK = Benchmark(
    name="processbench",
    title="ProcessBench",
    about="the first wrong step of 3,400 solutions of GSM8K, MATH, OlympiadBench and Omni-MATH",
    paper="2412.06559",
    hub="Qwen/ProcessBench",
    revision="84129ea839d654553ba3065b823af01d9e36be46",
    licence="Apache-2.0 on the hub, none stated in git; for evaluation",
    read=read,
    figures=figures,
    headline="f1",
    judgement=judgement,
    published=published.PROCESSBENCH,
    content=CONTENT,
    takes=frozenset({"verdicts", "splits"}),
    perfect=("f1", "tuned/f1", "optimum/f1"),
    floor={"f1": 0.0},
    columns=lambda names: [
        n for n in (*(f"{s}/f1" for s in SPLITS), "f1", "tuned/f1", "optimum/f1") if n in names
    ],
)
