"""Pools measured at once against the single measures, which have tests of their own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prmkit.aggregate import aggregate_scores
from prmkit.errors import NothingToMeasure
from prmkit.evaluation import (
    Draws,
    PoolSettings,
    best_of_n,
    majority_at_n,
    measure_pools,
    pass_at_n,
    processbench_f1,
    roc_auc,
    weighted_vote_at_n,
    within_group_auc,
)
from prmkit.records import Problem, Record, Step, StepLabels, StepScores, Trajectory, Unscored


@st.composite
def pools(draw, n=4):
    result = []
    for index in range(draw(st.integers(1, 4))):
        problem = Problem(id=str(index), prompt="q", answer="a")
        pool = []
        for _ in range(n):
            steps = draw(st.integers(1, 3))
            answer = draw(st.sampled_from(["a", "b", None]))
            first = draw(st.none() | st.integers(0, steps - 1))
            score = draw(
                st.none()
                | st.lists(st.sampled_from([0.1, 0.5, 0.9]), min_size=steps, max_size=steps)
            )
            labels = tuple(float(first is None or i < first) for i in range(steps))
            pool.append(
                Record(
                    trajectory=Trajectory(
                        problem=problem,
                        steps=(Step(text="s"),) * steps,
                        answer=answer,
                        correct=answer == "a",
                    ),
                    labels=StepLabels(values=labels, kind="hard"),
                    scores=(
                        Unscored(reason="r")
                        if score is None
                        else StepScores(values=tuple(score), semantics="correctness", model="m"),
                    ),
                )
            )
        result.append(pool)
    return result


def mean(values):
    values = list(values)
    return sum(values) / len(values)


@given(pools(), st.sampled_from(["min", "mean", "last"]))
def test_figures_are_those_of_the_single_measures(some, how):
    draws = Draws(draws=2000)
    measured = measure_pools(some, 0, PoolSettings(aggregation=how, votes=draws))
    columns = []
    for pool in some:
        picks = [
            float("-inf")
            if isinstance(r.scores[0], Unscored)
            else aggregate_scores(r.scores[0], how)
            for r in pool
        ]
        columns.append(
            (
                picks,
                [max(p, 0.0) for p in picks],
                [r.trajectory.answer for r in pool],
                [r.trajectory.correct for r in pool],
            )
        )
    curves = measured.curves
    assert curves.n == (1, 2, 4)
    for k, n in enumerate(curves.n):
        assert curves.oracle[k] == pytest.approx(mean(pass_at_n(c, n) for *_, c in columns))
        assert curves.best[k] == pytest.approx(mean(best_of_n(p, c, n) for p, _, _, c in columns))
        # Four standard errors of 2,000 draws of a number in [0, 1], twice; N = 1 and n are exact.
        near = 0.064 if 1 < n < 4 else 1e-9
        assert curves.majority[k] == pytest.approx(
            mean(majority_at_n(a, c, n, draws) for _, _, a, c in columns), abs=near
        )
        assert curves.weighted[k] == pytest.approx(
            mean(weighted_vote_at_n(a, w, c, n, draws) for _, w, a, c in columns), abs=near
        )
    flat = [r for pool in some for r in pool]
    unscored = sum(isinstance(r.scores[0], Unscored) for r in flat)
    assert measured.n_unscored == unscored
    if unscored < len(flat):
        assert measured.first_error == processbench_f1(
            [r.scores[0] for r in flat], [r.labels.first_error for r in flat]
        )
    else:
        assert measured.first_error is None
    items = [
        (p, c, g)
        for g, (picks, _, _, correct) in enumerate(columns)
        for p, c in zip(picks, correct, strict=True)
        if p > float("-inf")
    ]
    if len({c for _, c, _ in items}) == 2:
        assert measured.solution_auc == pytest.approx(
            roc_auc([p for p, _, _ in items], [c for _, c, _ in items])
        )
    else:
        assert measured.solution_auc is None
    try:
        expected = within_group_auc(*zip(*items, strict=True)) if items else None
    except NothingToMeasure:
        expected = None
    assert measured.within_problem == expected
    better = max(curves.best[-1], curves.weighted[-1])
    assert measured.margin.mean == pytest.approx(better - curves.majority[-1])
    assert all(v is not None for v in measured.metrics().values())


def test_log_ratios_vote_by_likelihood():
    def sample(answer, value):
        return Record(
            trajectory=Trajectory(
                problem=Problem(id="p", prompt="q"),
                steps=(Step(text="s"),),
                answer=answer,
                correct=answer == "a",
            ),
            scores=(StepScores(values=(value,), semantics="log_ratio", model="m"),),
        )

    # Two votes of weight e^-1 each are less than one of weight 1.
    pool = [sample("a", 800.0), sample("b", 799.0), sample("b", 799.0)]
    assert measure_pools([pool], 0, PoolSettings(aggregation="sum")).curves.weighted[-1] == 1
    assert measure_pools([pool], 0, PoolSettings(aggregation="sum")).curves.majority[-1] == 0
    assert measure_pools([pool], 0, PoolSettings(aggregation="sum")).calibration is None


def test_refusals():
    with pytest.raises(NothingToMeasure, match="no sample"):
        measure_pools([], 0, PoolSettings())
    one = Record(
        trajectory=Trajectory(problem=Problem(id="p", prompt="q")), scores=(Unscored(reason="r"),)
    )
    with pytest.raises(NothingToMeasure, match="1 to 2 samples"):
        measure_pools([[one], [one, one]], 0, PoolSettings())
    with pytest.raises(NothingToMeasure, match="not known whether the solutions of problem 'p'"):
        measure_pools([[one]], 0, PoolSettings())
