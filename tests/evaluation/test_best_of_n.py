"""Estimators against all subsets, drawn one by one, and against published figures."""

import gzip
import json
from collections import defaultdict
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prmkit.aggregate import aggregate_scores
from prmkit.errors import NothingToMeasure
from prmkit.evaluation import (
    Draws,
    best_of_n,
    majority_at_n,
    pass_at_n,
    weighted_vote_at_n,
)
from prmkit.evaluation.best_of_n import best_of_n_curves, picks_along
from prmkit.evaluation.pool_table import (
    PickSettings,
    Samples,
    samples_of,
    trial_spread,
    without_scores,
)
from prmkit.evaluation.ranking import roc_auc
from prmkit.records import Problem, Record, StepScores, Trajectory


@st.composite
def pools(draw):
    size = draw(st.integers(1, 7))
    answers = draw(st.lists(st.sampled_from([None, "a", "b", "c"]), min_size=size, max_size=size))
    right = draw(st.sampled_from(["a", "b", "z"]))
    weights = draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=size, max_size=size))
    return answers, weights, [a == right for a in answers], draw(st.integers(1, size))


def every_pick(correct, n, pick):
    """The mean over all subsets of the mean correctness of what is picked."""
    results = []
    for subset in combinations(range(len(correct)), n):
        picked = pick(subset)
        results.append(sum(correct[i] for i in picked) / len(picked) if picked else 0.0)
    return sum(results) / len(results)


@given(pools())
def test_pass_and_best_are_means_over_all_subsets(pool):
    _, scores, correct, n = pool
    assert pass_at_n(correct, n) == pytest.approx(
        every_pick(correct, n, lambda s: [i for i in s if correct[i]][:1])
    )
    assert best_of_n(scores, correct, n) == pytest.approx(
        every_pick(correct, n, lambda s: [i for i in s if scores[i] == max(scores[j] for j in s)])
    )


def plain_vote(answers, weights, correct):
    """One vote, in plain Python: the share of the tied winners that is right."""
    tally = defaultdict(float)
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None and weight > 0:
            tally[answer] += weight
    if not tally:
        return 0.0
    right = {a for a, c in zip(answers, correct, strict=True) if c}
    winners = [a for a in tally if tally[a] == max(tally.values())]
    return sum(a in right for a in winners) / len(winners)


@given(pools())
def test_votes_over_all_samples_are_exact(pool):
    answers, weights, correct, _ = pool
    n = len(answers)
    assert weighted_vote_at_n(answers, weights, correct, n) == pytest.approx(
        plain_vote(answers, weights, correct)
    )
    assert majority_at_n(answers, correct, n) == pytest.approx(
        plain_vote(answers, [1.0] * n, correct)
    )


@settings(max_examples=30, deadline=None)
@given(pools())
def test_votes_over_subsets_come_near_the_mean_over_all(pool):
    answers, weights, correct, n = pool
    exact = [
        plain_vote(*([column[i] for i in subset] for column in (answers, weights, correct)))
        for subset in combinations(range(len(answers)), n)
    ]
    drawn = weighted_vote_at_n(answers, weights, correct, n, Draws(draws=4000))
    # Four standard errors of 4,000 draws of a number in [0, 1].
    assert drawn == pytest.approx(sum(exact) / len(exact), abs=0.032)


def test_by_hand():
    correct = [True, False, False, False]
    assert pass_at_n(correct, 2) == pytest.approx(1 - 3 / 6)
    # The right one is best: it is picked whenever it is drawn, in half of the pairs.
    assert best_of_n([0.9, 0.5, 0.5, 0.1], correct, 2) == pytest.approx(0.5)
    # All alike: a random pick.
    assert best_of_n([0.5] * 4, correct, 3) == pytest.approx(0.25)
    # An unscored sample is never picked before a scored one.
    assert best_of_n([float("-inf"), 0.1, 0.1, 0.1], correct, 4) == 0
    # A tie of two answers, one of them right.
    assert majority_at_n(["x", "x", "y", "y"], [True, True, False, False], 4) == 0.5
    assert weighted_vote_at_n(["x", "y", "y"], [0.9, 0.3, 0.3], [True, False, False], 3) == 1


def test_sums_of_equal_weights_in_another_order_tie():
    answers = ["x", "y", "x", "y", "x", "y"]
    weights = [0.1, 0.3, 0.2, 0.2, 0.3, 0.1]
    assert weighted_vote_at_n(answers, weights, [a == "x" for a in answers], 6) == 0.5


def test_refusals():
    with pytest.raises(ValueError, match="from 1 to 2"):
        pass_at_n([True, False], 3)
    with pytest.raises(NothingToMeasure, match="no sample"):
        best_of_n([], [], 1)
    with pytest.raises(ValueError, match="vote 1 is -0.5"):
        weighted_vote_at_n(["x", "y"], [0.5, -0.5], [True, False], 2)
    with pytest.raises(ValueError, match="score 1 is not a number"):
        best_of_n([0.1, float("nan")], [True, False], 1)


# Computed apart from this code when the data was prepared: exact expectation with ties, 500
# GSM8K problems x 32 samples of Qwen2.5-7B-Instruct, real scores. (N=8, N=32)
GSM8K = {
    ("qwen_prm", "min"): (0.9551, 0.9609),
    ("qwen_prm", "last"): (0.9501, 0.9519),
    ("qwen_prm", "product"): (0.9551, 0.9600),
    ("qwen_prm", "mean"): (0.9555, 0.9620),
    ("skywork_prm", "last"): (0.9565, 0.9660),
    ("rlhflow_prm", "min"): (0.9433, 0.9486),
    ("math_shepherd", "product"): (0.9347, 0.9400),
    ("internlm2_1_8b_reward", "min"): (0.9190, 0.9090),
}
AUC = {("qwen_prm", "min"): 0.904, ("qwen_prm", "last"): 0.830, ("skywork_prm", "min"): 0.894}


@pytest.fixture(scope="module")
def gsm8k_pool(shared_data):
    def lines(name):
        with gzip.open(shared_data / "bon_gsm8k" / name, "rt", encoding="utf-8") as file:
            yield from map(json.loads, file)

    scores = {row["problem_id"]: row["scores"] for row in lines("gsm8k_step_scores.jsonl.gz")}
    return [
        (row["candidates"], scores[row["problem_id"]]) for row in lines("gsm8k_candidates.jsonl.gz")
    ]


def test_published_figures_of_real_scores(gsm8k_pool):
    def aggregated(steps, how):
        return aggregate_scores(StepScores(values=steps, semantics="value", model="m"), how)

    correct = [[c["is_correct"] for c in candidates] for candidates, _ in gsm8k_pool]
    assert sum(sum(c) / 32 for c in correct) / 500 == pytest.approx(0.9206, abs=5e-5)
    for n, expected in ((8, 0.9713), (32, 0.9800)):
        assert sum(pass_at_n(c, n) for c in correct) / 500 == pytest.approx(expected, abs=5e-5)
    answers = [[c["answer"] for c in candidates] for candidates, _ in gsm8k_pool]
    votes = [majority_at_n(a, c, 32) for a, c in zip(answers, correct, strict=True)]
    assert sum(votes) / 500 == pytest.approx(0.942, abs=0.002)
    for (model, how), (at_8, at_32) in GSM8K.items():
        scores = [
            [aggregated(steps, how) for steps in by_model[model]] for _, by_model in gsm8k_pool
        ]
        for n, expected in ((8, at_8), (32, at_32)):
            picked = [best_of_n(s, c, n) for s, c in zip(scores, correct, strict=True)]
            assert sum(picked) / 500 == pytest.approx(expected, abs=5.1e-5), (model, how, n)
        if (model, how) in AUC:
            pooled = roc_auc(
                [s for row in scores for s in row], [c for row in correct for c in row]
            )
            assert pooled == pytest.approx(AUC[model, how], abs=5.1e-4)


def highest(scores, some, ties):
    """The best scored of some samples: all that are equal, or the first of them."""
    best = [i for i in some if scores[i] == max(scores[j] for j in some)]
    return best if ties == "share" else best[:1]


@pytest.mark.parametrize("ties", ["share", "first"])
@given(pools())
def test_ties_are_shared_or_go_to_the_first_as_told(ties, pool):
    _, scores, correct, n = pool
    values, right = np.array(scores), np.array(correct)
    exact = best_of_n_curves(values[None], right[None], ties)[0, n - 1]
    assert exact == pytest.approx(every_pick(correct, n, lambda s: highest(scores, s, ties)))
    order = np.random.default_rng(n).permutation(len(scores))
    along = picks_along(values, right, order[None], ties)[0]
    for k in range(len(scores)):
        hits = [correct[i] for i in highest(scores, order[: k + 1].tolist(), ties)]
        assert along[k] == pytest.approx(sum(hits) / len(hits))


def test_the_shuffled_protocol_of_prm800k():
    rng = np.random.default_rng(0)
    n_problems, n = 30, 6
    correct = rng.random((n_problems, n)) < 0.5
    groups = np.where(rng.random((n_problems, n)) < 0.2, -1, 0)
    scores = rng.random((n_problems, n))
    samples = Samples([str(p) for p in range(n_problems)], correct, groups, groups > -2)
    settings = PickSettings(sampling="shuffled", draws=Draws(draws=3000))
    mean, sd = trial_spread(samples, scores, settings)
    # What has no answer cannot be picked: it is dropped after the draw, and nothing left is wrong.
    usable = np.where(groups >= 0, scores, -np.inf)
    expected = [
        np.mean([best_of_n(usable[p], correct[p] & (groups[p] >= 0), k) for p in range(n_problems)])
        for k in range(1, n + 1)
    ]
    assert mean == pytest.approx(expected, abs=0.01)
    assert sd[-1] == pytest.approx(0, abs=1e-12)
    # One of one: the variance of a mean of independent draws.
    p = (correct & (groups >= 0)).mean(axis=1)
    assert sd[0] == pytest.approx((p * (1 - p)).sum() ** 0.5 / n_problems, rel=0.1)


def test_problems_may_have_fewer_samples_than_others():
    """Those that are missing are wrong, and have neither score nor answer."""

    def record(name, right):
        return Record(
            trajectory=Trajectory(
                problem=Problem(id=name, prompt="q"), answer="1" if right else "2", correct=right
            )
        )

    samples = samples_of([[record("a", True)], [record("b", True), record("b", False)]])
    assert samples.there.tolist() == [[True, False], [True, True]]
    assert samples.groups.tolist() == [[0, -1], [0, 1]]
    oracle, majority = without_scores(samples, PickSettings())
    assert oracle.tolist() == [[0.5, 1], [0.5, 1]]
    assert majority.tolist() == [[0.5, 1], [0.5, 0.5]]
