"""PRMBench: every step of 6,216 solutions into which errors of nine kinds were put.

    paper      arXiv:2501.03124
    data       hitsmy/PRMBench_Preview on the hub
    revision   5cc7683d0ae5797f84d7aeac0607966f277c39e1
    licence    Apache-2.0
    published  the project's notebook form_latex_strs.ipynb

Quirks of the official evaluator that are kept: wrong steps are counted from 1; five ids occur
twice among the multiple solutions, and the first counts (figures of all rows are given beside);
numbers past the last step are never counted; multiple solutions are measured by F1 alone; a step
is valid only above the threshold; the two kinds about simplicity are judged by redundancy where a
judge gives it. The 758 unchanged originals (``correct_…``), from which only its "similarity" is
taken, are not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

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
    is_repeated,
    read_cases,
)
from prmkit.evaluation.figures import Judged, average, share
from prmkit.evaluation.judgements import RIGHT, WRONG, Judgement, Verdict, verdict_of_steps
from prmkit.evaluation.prm_score import prm_score, valid_score
from prmkit.evaluation.statistics import Statistic, Sums
from prmkit.formats import prmbench
from prmkit.formats.base import ReadSettings, Row, need
from prmkit.records import StepScores, Unscored

CLASSES = {
    "redundency": "NR",
    "circular": "NCL",
    "counterfactual": "ES",
    "step_contradiction": "SC",
    "domain_inconsistency": "DC",
    "confidence": "CI",
    "missing_condition": "PS",
    "deception": "DR",
    "multi_solutions": "MS",
}
"""The nine kinds, as the data spell them, with the names of the tables."""

DIMENSIONS = {
    "simplicity": ("redundency", "circular"),
    "soundness": ("counterfactual", "step_contradiction", "domain_inconsistency", "confidence"),
    "sensitivity": ("missing_condition", "deception", "multi_solutions"),
}
BY_REDUNDANCY = ("redundency", "circular")
WITHOUT_ERRORS = "multi_solutions"

CONTENT = {
    "redundency": Content(
        758, digest="84d268294b234122487cd49d61b27a5210e155db492099c399fcc3d11d178c96"
    ),
    "circular": Content(
        758, digest="e560737c17ed10227b992c885ee8a4000e550bead2c4f703d812dfae303adb6b"
    ),
    "counterfactual": Content(
        757, digest="a3d9e5754fb1229b74e705ea36ea4b1efdef4f4b8eed13ccdb9fe573f84c6b60"
    ),
    "step_contradiction": Content(
        758, digest="24360cdf824883808e6370ce5cfb245d26f71a91944a56d6908edcebc697fede"
    ),
    "domain_inconsistency": Content(
        757, digest="2a929eb60cb8c47ea4d28317ee9f60aa4741d511602c9b26a22a4608cfc3dc1c"
    ),
    "confidence": Content(
        757, digest="36f41446c28babf027613c66e0cb94393904357c28d34692592a4fba1edabcf4"
    ),
    "missing_condition": Content(
        756, digest="e7deb72680a1b6a81a02125125b010eba4677138d1f0454d9729788f68396b2d"
    ),
    "deception": Content(
        750, digest="cb1061ea427b98619b160538bc750738db00df19466f2599049a2dd8e1464fe8"
    ),
    "multi_solutions": Content(
        165, digest="e7153d35d36c52458ba8e65054dfc6f8ca6551596d2f66c1adbc9b51fc41b26b"
    ),
}


def read(path: Path) -> list[Case]:
    """The cases of the published file, or of a folder that holds it."""

    def cases(row: Row) -> list[Case]:
        (record,) = prmbench.FORMAT.read(row, ReadSettings())
        kind = need(row.data, "classification", str)
        if kind not in CLASSES:
            raise FormatError(f"'classification' is {kind!r}; expected one of {', '.join(CLASSES)}")
        # The same problem was changed in several ways.
        return [Case(record.trajectory.problem.id, record, kind, str(row.data["idx"]))]

    return read_cases(_files(path), cases, repeats=True)


def _files(path: Path) -> list[Path]:
    return [f for f in data_files(path) if path.is_file() or "score" not in f.name]


def judgement(row: Row, cases: Mapping[str, Case]) -> list[Given] | None:
    """A row of the official evaluator's input: scores and labels of one case."""
    data = row.data
    model = data.get("model_name")
    if isinstance(data.get("results"), dict):
        data = data["results"]
    if not isinstance(data.get("idx"), str) or not isinstance(data.get("scores"), dict):
        return None
    idx, given = data["idx"], data["scores"]
    name = model if isinstance(model, str) else None
    if idx.startswith("correct_"):
        return []
    case = cases.get(idx)
    if case is None:
        return [Given(name, idx, Judgement(None))]
    if data.get("validity") is False or not given:
        unscored = Unscored(reason="the file calls this result invalid", model=name)
        return [Given(name, idx, Judgement(unscored))]
    return [Given(name, idx, _judgement(given, name, case))]


def _judgement(given: Mapping[str, object], name: str | None, case: Case) -> Judgement:
    n = len(case.record.trajectory.steps)
    scores = _list(given, "step_level_validity_scores", case)
    labels = _list(given, "step_level_validity_labels", case, may_be_short=True)
    redundant = _list(given, "step_level_redundancy_labels", case, may_be_short=True)
    redundancy = _list(given, "step_level_redundancy_scores", case)
    if scores is None and labels is None:
        raise FormatError(
            "'scores' has neither 'step_level_validity_scores' nor 'step_level_validity_labels'"
        )
    if labels is not None and len(labels) < n:
        # Steps beyond what a judge could read have neither a label nor a score.
        scores = redundancy = None
    for key, values in (("validity", scores), ("redundancy", redundancy)):
        if values is not None and len(values) != n:
            raise FormatError(
                f"'step_level_{key}_scores' has {len(values)} entries; {case.id!r} has {n} steps"
            )
    verdict = None
    if labels is not None:
        called = None if redundant is None else tuple(bool(r) for r in redundant)
        # In the official evaluator whatever is not true is invalid, and what is not there is
        # not counted.
        steps = [RIGHT if v == 1 else WRONG for v in labels]
        verdict = verdict_of_steps([*steps, *[None] * (n - len(steps))], called)
    values_of = (
        None
        if scores is None
        else StepScores(values=tuple(scores), semantics="value", model=name or "scores")
    )
    return Judgement(values_of, verdict, None if redundancy is None else tuple(redundancy))


def _list(
    given: Mapping[str, object], key: str, case: Case, *, may_be_short: bool = False
) -> list[float] | None:
    values = given.get(key)
    if values is None:
        return None
    if not isinstance(values, list) or not all(isinstance(v, int | float) for v in values):
        raise FormatError(f"{key!r} is {values!r:.80}; expected a list of numbers or of truths")
    n = len(case.record.trajectory.steps)
    if len(values) > n or (may_be_short and not values and n):
        raise FormatError(f"{key!r} has {len(values)} entries; {case.id!r} has {n} steps")
    return values


def figures(judged: Judged, protocol: Protocol) -> Figures:
    """PRMScore over all steps, of each kind, and the means of the three dimensions."""
    everything = judged.scored()
    once = everything.where([i for i, c in enumerate(everything.cases) if not is_repeated(c)])
    result, n_steps = _scores(once)
    if len(once.cases) < len(everything.cases):
        with_repeats, _ = _scores(everything)
        changed = ("prm_score", "sensitivity", CLASSES[WITHOUT_ERRORS])
        result |= {f"repeats_counted/{k}": with_repeats[k] for k in changed if k in with_repeats}
    return Figures(result, {"steps_counted": n_steps})


def _scores(judged: Judged) -> tuple[dict[str, Statistic], int]:
    rows = [_counts(c, v) for c, v in zip(judged.cases, judged.verdicts, strict=True) if v]
    sums = {
        kind: _sums(judged, rows, [i for i, c in enumerate(judged.cases) if c.split == kind])
        for kind in CLASSES
        if any(case.split == kind for case in judged.cases)
    }
    everything = _sums(judged, rows, list(range(len(rows))))
    result: dict[str, Statistic] = {"prm_score": everything}
    for dimension, kinds in DIMENSIONS.items():
        parts = [sums[kind] for kind in kinds if kind in sums]
        if len(parts) == len(kinds):
            result[dimension] = average(parts)
        for kind in kinds:
            if kind in sums:
                result[CLASSES[kind]] = sums[kind]
    result |= _accuracies(everything)
    result["first_error_accuracy"] = _first_error(judged)
    return result, int(everything.sums.sum())


Counts = tuple[int, int, int, int]


def _counts(case: Case, verdict: Verdict) -> Counts:
    """tp, fp, tn, fn of one case's steps; steps of which nothing is said are not counted."""
    assert case.record.labels is not None
    tp = fp = tn = fn = 0
    for index, truth in enumerate(case.record.labels.values):
        called = _called_valid(case, verdict, index)
        if called is None:
            continue
        tp += bool(truth and called)
        fp += bool(not truth and called)
        tn += bool(not truth and not called)
        fn += bool(truth and not called)
    return tp, fp, tn, fn


def _called_valid(case: Case, verdict: Verdict, index: int) -> bool | None:
    """Whether a step is called valid, or of two kinds not redundant; None where nothing is said."""
    if case.split in BY_REDUNDANCY and verdict.redundant is not None:
        flags = verdict.redundant
        return flags[index] is not True if index < len(flags) else None
    label = verdict.steps[index] if index < len(verdict.steps) else None
    return None if label is None else label == RIGHT


def _sums(judged: Judged, rows: Sequence[Counts], keep: Sequence[int]) -> Sums:
    part = judged.where(keep)
    columns = list(zip(*(rows[i] for i in keep), strict=True)) or [(), (), (), ()]
    counts = part.sums(columns)
    only = {case.split for case in part.cases}
    measure = valid_score if only == {WITHOUT_ERRORS} else prm_score
    return Sums(counts, lambda s: measure(*s.T), len(keep))


def _accuracies(everything: Sums) -> dict[str, Statistic]:
    return {
        "correct_step_accuracy": everything._replace(
            combine=lambda s: share(s[:, 0], s[:, 0] + s[:, 3])
        ),
        "wrong_step_accuracy": everything._replace(
            combine=lambda s: share(s[:, 2], s[:, 2] + s[:, 1])
        ),
        "total_step_accuracy": everything._replace(
            combine=lambda s: share(s[:, 0] + s[:, 2], s.sum(axis=1))
        ),
    }


def _first_error(judged: Judged) -> Sums:
    """Whether the first wrong step itself is called wrong, where there is one to be called so."""
    keep, hits = [], []
    for i, (case, verdict) in enumerate(zip(judged.cases, judged.verdicts, strict=True)):
        assert case.record.labels is not None
        assert verdict is not None
        numbers = case.record.meta.get("error_steps")
        first = (
            min((n for n in numbers if isinstance(n, int)), default=None)
            if isinstance(numbers, list)
            else None
        )
        if first is None or first > len(case.record.labels.values):
            continue
        called = _called_valid(case, verdict, first - 1)
        if called is not None:
            keep.append(i)
            hits.append(not called)
    return judged.where(keep).mean(hits)


BENCHMARK = Benchmark(
    name="prmbench",
    title="PRMBench",
    about="every step of 6,211 solutions with nine kinds of errors put in",
    paper="2501.03124",
    hub="hitsmy/PRMBench_Preview",
    revision="5cc7683d0ae5797f84d7aeac0607966f277c39e1",
    licence="Apache-2.0",
    read=read,
    figures=figures,
    headline="prm_score",
    judgement=judgement,
    equal="wrong",
    published=published.PRMBENCH,
    content=CONTENT,
    perfect=("prm_score", *DIMENSIONS, *CLASSES.values(), "first_error_accuracy"),
    published_floor={"prm_score": 0.457},
    repeats=True,
    takes=frozenset({"verdicts", "redundancy"}),
    columns=lambda names: [
        n
        for n in (
            "prm_score",
            *(c for d, k in DIMENSIONS.items() for c in (*(CLASSES[x] for x in k), d)),
        )
        if n in names
    ],
)
