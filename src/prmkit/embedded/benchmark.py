"""The embedded world as a benchmark: solutions of the shipped policy, judged by the world itself.

    data       drawn afresh from a seed: nothing is downloaded
    licence    Apache-2.0, as prmkit

``embedded`` has problems like those that the shipped models know, ``embedded_ood`` harder ones with
words that they never saw. Every step of every solution is labelled by the world's judge, so first
errors, rankings within a problem and best-of-N can all be measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from prmkit.embedded.judge import true_labels
from prmkit.embedded.world import Split, problems
from prmkit.evaluation.benchmarks import best_of_n
from prmkit.evaluation.cases import Benchmark, Case, Figures, Protocol
from prmkit.evaluation.figures import Judged, first_error_statistics, with_strict
from prmkit.evaluation.statistics import Statistic
from prmkit.records import Record

PROBLEMS, SAMPLES = 60, 8


def make(n_problems: int | None, *, split: Split, n_samples: int = SAMPLES) -> list[Case]:
    """Cases, drawn anew; always the same ones on one machine.

    Args:
        n_problems: how many problems; by default 60.
        split: ``test`` or ``ood``.
        n_samples: solutions of each.
    """
    from prmkit.embedded.build import WEIGHTS
    from prmkit.embedded.quickstart import SAMPLING, judge, split_lines
    from prmkit.policies.hf import HFPolicy
    from prmkit.policies.sampling import sample

    policy = HFPolicy(WEIGHTS / "policy", device="cpu")
    wanted = list(problems(split, PROBLEMS if n_problems is None else n_problems))
    cases = []
    for group in sample(policy, wanted, n_samples, split_lines, judge, settings=SAMPLING, seed=1):
        for i, trajectory in enumerate(group):
            record = Record(trajectory=trajectory, labels=true_labels(trajectory))
            name = trajectory.problem.id
            cases.append(Case(f"{name}/{i}", record, split, name))
    return cases


def figures(judged: Judged, protocol: Protocol) -> Figures:
    """First errors as in ProcessBench, and picking among the samples of a problem."""
    first = with_strict(judged, first_error_statistics)
    picks = best_of_n.figures(judged, protocol)
    found: dict[str, Statistic] = {f"first_error/{name}": s for name, s in first.items()}
    return Figures({**found, **picks.figures}, picks.facts)


def _columns(names: Sequence[str]) -> list[str]:
    shown = [n for n in names if n.startswith("first_error/")]
    return shown + [n for n in best_of_n.columns(names) if n.endswith("/min") or "/" not in n]


def _benchmark(name: str, split: Split, about: str) -> Benchmark:
    return Benchmark(
        name=name,
        title="Embedded world" if split == "test" else "Embedded world, out of domain",
        about=about,
        paper="docs/decisions/0006-embedded-world.md",
        hub=None,
        revision=None,
        licence="Apache-2.0",
        read=best_of_n.read,
        figures=figures,
        headline="first_error/f1",
        perfect=("first_error/accuracy_wrong", "first_error/accuracy_right"),
        takes=frozenset({"verdicts", "picks"}),
        keeps_unscored=True,
        columns=_columns,
        make=partial(make, split=split),
    )


BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        _benchmark("embedded", "test", "word problems that ship with prmkit; nothing to download"),
        _benchmark("embedded_ood", "ood", "the same, harder and in other words"),
    )
}
"""The embedded benchmarks, by name."""
