"""What tests of benchmarks share: judgements, and the figures of one judge."""

import pytest

from prmkit.evaluation.benchmarks import BENCHMARKS
from prmkit.evaluation.judgements import Judgement
from prmkit.evaluation.run import MeasureSettings, measure
from prmkit.evaluation.score_files import in_order, read_scores
from prmkit.records import StepScores


def scored(*values, semantics="value"):
    return Judgement(StepScores(values=values, semantics=semantics, model="m"))


def figures(name, cases, judgements, **settings):
    settings = MeasureSettings(resamples=0, **settings)
    model = measure(BENCHMARKS[name], cases, {"judge": judgements}, settings).models["judge"]
    return {k: e.value for k, e in model.figures.items()}, model


def from_file(name, cases, path, **settings):
    judges = in_order(read_scores(path, BENCHMARKS[name], cases), cases)
    (judgements,) = judges.values()
    return figures(name, cases, judgements, **settings)[0]


def of(name):
    """Marks a test whose fixture `cases` holds the cases of a benchmark."""
    return pytest.mark.parametrize("cases", [name], indirect=True, ids=[name])
