"""Every benchmark against every law, on small files in its published format."""

import dataclasses

import numpy as np
import pytest

from prmkit.evaluation.benchmarks import BENCHMARKS
from prmkit.evaluation.cases import Figures, check_content
from prmkit.evaluation.judgements import Judgement
from prmkit.records import StepScores
from prmkit.testing import BENCHMARK_LAWS, LawBroken, check_benchmark
from published_rows import WRITERS


def test_each_benchmark_is_tested():
    assert set(WRITERS) == set(BENCHMARKS)


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    def of(name):
        folder = tmp_path_factory.mktemp(name)
        return BENCHMARKS[name].read(WRITERS[name](folder))

    return of


@pytest.mark.parametrize("law", BENCHMARK_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("name", WRITERS)
def test_law(name, law, read):
    law(BENCHMARKS[name], read(name))


@pytest.mark.parametrize(
    "name", sorted(set(WRITERS) - {"prm800k", "prm800k_completions", "best_of_n"})
)
def test_small_files_are_not_the_published_ones(name, read):
    differences = check_content(BENCHMARKS[name], read(name))
    assert differences
    assert "published" in differences[0]
    with pytest.raises(LawBroken, match="the published data"):
        check_benchmark(BENCHMARKS[name], read(name), published=True)


def test_laws_are_seen_to_fail(read):
    known, cases = BENCHMARKS["processbench"], read("processbench")

    def broken(**changes):
        return dataclasses.replace(known, **changes)

    with pytest.raises(LawBroken, match="unique ids"):
        check_benchmark(known, [*cases, cases[0]])
    with pytest.raises(LawBroken, match="gold is perfect"):
        check_benchmark(
            broken(
                gold=lambda case: Judgement(
                    StepScores(
                        values=(0.0,) * len(case.record.trajectory.steps),
                        semantics="correctness",
                        model="m",
                    )
                )
            ),
            cases,
        )
    with pytest.raises(LawBroken, match="the floor"):
        check_benchmark(broken(floor={"f1": 0.3}), cases)
    with pytest.raises(LawBroken, match="none of the figures"):
        check_benchmark(broken(perfect=("no_such_figure",)), cases)

    class OfTheFirst:
        n = 1

        def __init__(self, case):
            self.value = float(sum(map(ord, case.id)))

        def __call__(self, weights):
            return np.full(len(weights), self.value)

    def by_place(judged, protocol):
        found = known.figures(judged, protocol)
        return Figures({**found.figures, "first": OfTheFirst(judged.cases[0])})

    with pytest.raises(LawBroken, match="order does not matter"):
        check_benchmark(broken(figures=by_place), cases)
    bare = cases[0].record.trajectory.model_copy(update={"correct": None})
    without = [cases[0]._replace(record=cases[0].record.replace(labels=None, trajectory=bare))]
    with pytest.raises(LawBroken, match="a case has a truth"):
        check_benchmark(known, without)
