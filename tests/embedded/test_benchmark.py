"""The embedded world as a benchmark."""

import pytest

from prmkit.embedded.benchmark import BENCHMARKS
from prmkit.testing import check_benchmark


@pytest.mark.parametrize("name", BENCHMARKS)
def test_laws(name):
    known = BENCHMARKS[name]
    cases = known.make(3)
    assert len(cases) == 24
    assert {case.split for case in cases} == {"test" if name == "embedded" else "ood"}
    assert all(len(c.record.labels.values) == len(c.record.trajectory.steps) for c in cases)
    check_benchmark(known, cases)
