"""The cases of small files in published formats."""

import pytest

import published_rows as rows
from prmkit.evaluation.benchmarks import BENCHMARKS


@pytest.fixture
def cases(request, tmp_path):
    """The cases of the benchmark that a test is marked with; see `by_hand.of`."""
    name = request.param
    return BENCHMARKS[name].read(rows.WRITERS[name](tmp_path))
