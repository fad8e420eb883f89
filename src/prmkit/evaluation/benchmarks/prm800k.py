"""PRM800K: human ratings of steps of held-out trajectories.

    paper      arXiv:2305.20050
    data       git openai/prm800k (prm800k/data/phase1_test.jsonl, phase2_test.jsonl)
    revision   00811d6de065642a6967b9017d4cee59550c0ef4
    licence    MIT
    published  none that compares: the paper measures best-of-N

Right are steps rated 1 and 0, wrong those rated -1, as everywhere in the field. Two views:
``prm800k`` follows the chosen steps; ``prm800k_completions`` has a case for every rated completion
of every step, so that completions after one prefix can be compared with each other. Questions for
quality control and for screening are left out.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from prmkit.evaluation import classification
from prmkit.evaluation.cases import (
    Benchmark,
    Case,
    Content,
    DataFile,
    Figures,
    Protocol,
    data_files,
    read_cases,
)
from prmkit.evaluation.figures import Judged, first_error_statistics, share, with_strict
from prmkit.evaluation.judgements import RIGHT, Verdict
from prmkit.evaluation.statistics import Statistic, Sums
from prmkit.formats import prm800k
from prmkit.formats.base import ReadSettings, Row

FILES = (
    DataFile(
        "prm800k/data/phase1_test.jsonl",
        "f4b3bc5b095e45c816453dc4d748b755c680d61d55f9895d929a335b487c727d",
    ),
    DataFile(
        "prm800k/data/phase2_test.jsonl",
        "6b172efa884ac8341a946dd82e06947c135b7254109fb3f7aa907c715d98aaad",
    ),
)
"""With the digests that the pointers in git tell."""


def read(path: Path, view: str) -> list[Case]:
    """The cases of a file, or of the test files of a folder."""
    files = [f for f in data_files(path) if path.is_file() or "test" in f.name]

    def cases(row: Row) -> list[Case]:
        data = row.data
        if data.get("is_quality_control_question") or data.get("is_initial_screening_question"):
            return []
        found = []
        for record in prm800k.FORMAT.read(row, ReadSettings(view=view)):
            problem = record.trajectory.problem
            name = problem.id
            if view == "completions":
                # It is not sure what the steps before an ambiguous last group are.
                last = len(data["steps"]) - 1 if data.get("last_group_ambiguous") else None
                if record.meta["position"] == last:
                    continue
                name += f"/{record.meta['position']}/{record.meta['completion']}"
            if record.trajectory.steps:
                split = row.path.name.split(".")[0]
                found.append(Case(name, record, split, problem.text))
        return found

    return read_cases(files, cases)


def figures(judged: Judged, protocol: Protocol) -> Figures:
    """Accuracies of rated steps, and first errors where whole trajectories are judged."""
    return Figures(with_strict(judged, _figures))


def _figures(judged: Judged) -> dict[str, Statistic]:
    judged = judged.scored()
    rows = [_counts(c, v) for c, v in zip(judged.cases, judged.verdicts, strict=True) if v]
    sums = judged.sums(list(zip(*rows, strict=True)) if rows else [[]] * 4)
    n = int(sums.sum())
    figures: dict[str, Statistic] = {
        "step_accuracy": Sums(sums, lambda s: share(s[:, 0] + s[:, 2], s.sum(axis=1)), n),
        "step_macro_f1": Sums(sums, lambda s: classification.macro_f1(*s.T), n),
        "right_step_accuracy": Sums(sums, lambda s: share(s[:, 0], s[:, 0] + s[:, 3]), n),
        "wrong_step_accuracy": Sums(sums, lambda s: share(s[:, 2], s[:, 2] + s[:, 1]), n),
    }
    if not any("completion" in case.record.meta for case in judged.cases):
        figures |= {f"first_error/{k}": v for k, v in first_error_statistics(judged).items()}
    return figures


def _counts(case: Case, verdict: Verdict) -> tuple[int, int, int, int]:
    """tp, fp, tn, fn of the rated steps; a step of which nothing is said is called the other."""
    assert case.record.labels is not None
    tp = fp = tn = fn = 0
    for index, rating in enumerate(case.record.labels.values):
        if rating is None:
            continue
        label = verdict.steps[index] if index < len(verdict.steps) else None
        if rating >= 0:
            tp, fn = tp + (label == RIGHT), fn + (label != RIGHT)
        else:
            wrong = label is not None and label != RIGHT
            tn, fp = tn + wrong, fp + (not wrong)
    return tp, fp, tn, fn


def _benchmark(name: str, view: str, about: str, content: dict[str, Content]) -> Benchmark:
    return Benchmark(
        name=name,
        title=f"PRM800K, {view}",
        about=about,
        paper="2305.20050",
        hub=None,
        git="openai/prm800k",
        files=FILES,
        revision="00811d6de065642a6967b9017d4cee59550c0ef4",
        licence="MIT",
        read=partial(read, view=view),
        figures=figures,
        headline="step_accuracy",
        content=content,
        perfect=("step_accuracy",),
        floor={"wrong_step_accuracy": 0.0, "right_step_accuracy": 1.0},
    )


BENCHMARK = _benchmark(
    "prm800k", "path", "human ratings of the chosen steps of held-out trajectories", {}
)
COMPLETIONS = _benchmark(
    "prm800k_completions",
    "completions",
    "human ratings of every completion that was offered at every step",
    {},
)
