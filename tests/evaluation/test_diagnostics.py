"""What scores are made of, by hand; agreement; robustness; contamination."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prmkit.evaluation.agreement import agreement, cohens_kappa
from prmkit.evaluation.cases import Case, Protocol, first_error_labels, group_numbers
from prmkit.evaluation.contamination import contamination, words_of
from prmkit.evaluation.diagnostics import best_aggregation, diagnose, ranks
from prmkit.evaluation.figures import Judged
from prmkit.evaluation.judgements import Judgement
from prmkit.evaluation.robustness import CHANGES, changed_cases, robustness, shift
from prmkit.evaluation.statistics import Bootstrap, mean
from prmkit.records import Problem, Record, Step, StepScores, Trajectory, Unscored
from strategies import trajectories


def case(name, texts, first_error=None, problem=None):
    trajectory = Trajectory(
        problem=Problem(id=problem or name, prompt=f"question {problem or name}"),
        steps=tuple(Step(text=text) for text in texts),
        separator="\n",
    )
    labels = first_error_labels(first_error, len(texts), "test")
    return Case(name, Record(trajectory=trajectory, labels=labels), "all", problem or name)


def judged(cases, scores):
    judgements = [
        Judgement(
            Unscored(reason="r")
            if values is None
            else StepScores(values=tuple(values), semantics="value", model="m")
        )
        for values in scores
    ]
    return Judged.of(cases, judgements, group_numbers(cases), Protocol(), "right")


def values_of(figures, n_groups):
    bootstrap = Bootstrap(n_groups, 0)
    return {name: bootstrap.value(statistic) for name, statistic in figures.items()}


def test_by_hand():
    cases = [
        case("a", ["x", "y", "x"]),
        case("b", ["one", "two"], first_error=1),
        case("c", ["only"]),
        case("d", ["p", "q"]),
        case("e", ["r", "s"]),
    ]
    scores = [[0.9, 0.8, 0.5], [0.9, 0.1], [0.2], [0.6, 0.6], None]
    diagnosis = diagnose(judged(cases, scores), Protocol())
    found = values_of(diagnosis.figures, 5)
    # Last is lowest in a and b; in d the two tie; c has one step alone, e has no score.
    assert found["outcome_like/lowest_is_last"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert found["outcome_like/by_chance"] == pytest.approx((1 / 3 + 1 / 2 + 1 / 2) / 3)
    # Lowest 0.5, 0.1, 0.2, 0.6 against 3, 2, 1, 2 steps; ranks 3 1 2 4 and 4 2.5 1 2.5.
    assert found["length/steps"] == pytest.approx(np.corrcoef([3, 1, 2, 4], [4, 2.5, 1, 2.5])[0, 1])
    # Right steps of solutions of two or more: (0, .9) (.5, .8) (1, .5) (0, .9) (0, .6) (1, .6).
    x, y = [0, 0.5, 1, 0, 0, 1], [0.9, 0.8, 0.5, 0.9, 0.6, 0.6]
    assert found["drift/slope"] == pytest.approx(np.polyfit(x, y, 1)[0])
    table = diagnosis.drift
    assert table[0] == (0.0, 0.1, pytest.approx(0.8), 3)
    assert [row[3] for row in table] == [3, 1, 2]
    assert found["repeats/share"] == pytest.approx(1 / 8)
    rest = [0.9, 0.8, 0.9, 0.1, 0.2, 0.6, 0.6]
    assert found["repeats/score_gap"] == pytest.approx(0.5 - sum(rest) / 7)


def test_no_scores_no_diagnostics():
    cases = [case("a", ["x"])]
    assert diagnose(judged(cases, [None]), Protocol()) == ({}, [])


def test_ranks_share_places():
    assert ranks([0.5, 0.1, 0.5, 0.9]).tolist() == [2.5, 1, 2.5, 4]


def test_the_best_aggregation_is_first_and_the_others_are_measured_from_it():
    figures = {
        "best_of_2/min": mean([1, 0, 1, 0], np.arange(4), 4),
        "best_of_2/last": mean([1, 1, 1, 0], np.arange(4), 4),
        "other": mean([1, 1, 1, 1], np.arange(4), 4),
    }
    ways = best_aggregation(figures, "best_of_2/", Bootstrap(4, 200))
    assert [way.how for way in ways] == ["last", "min"]
    assert ways[0].to_best[:3] == (0, 0, 0)
    assert ways[1].to_best.value == -0.25
    assert ways[1].to_best.low < -0.25 <= ways[1].to_best.high <= 0


def test_kappa_by_hand():
    # Seen 3 of 4; by chance 1/2 * 3/4 + 1/2 * 1/4.
    a, b = np.array([1, 1, -1, -1]), np.array([1, 1, 1, -1])
    found = cohens_kappa(a, b, np.arange(4), 4)
    assert found(np.ones((1, 4)))[0] == pytest.approx((0.75 - 0.5) / 0.5)
    same = cohens_kappa(a * 0 + 1, b * 0 + 1, np.arange(4), 4)
    assert same(np.ones((1, 4)))[0] == 1


def test_agreement_of_two_judges():
    cases = [
        case("a", ["x", "y"], 1, problem="p"),
        case("b", ["x", "z"], problem="p"),
        case("c", ["x"], problem="q"),
    ]
    a = judged(cases, [[0.9, 0.2], [0.8, 0.7], [0.9]])
    b = judged(cases, [[0.8, 0.1], [0.9, 0.4], None])
    found = values_of(agreement(a, b), 2)
    assert found["first_error/same"] == 0.5
    assert found["steps/spearman"] == pytest.approx(np.corrcoef([4, 1, 3, 2], [3, 1, 4, 2])[0, 1])
    # Labels 1 -1 1 1 and 1 -1 1 -1: seen 3/4, by chance 3/4 * 1/2 + 1/4 * 1/2.
    assert found["steps/kappa"] == pytest.approx((0.75 - 0.5) / 0.5)
    # Both pick b of p: lowest 0.2 and 0.7, 0.1 and 0.4; q has one sample.
    assert found["picks/same"] == 1
    assert found["together/auc_gain"] == 0
    alone = values_of(agreement(a, a), 2)
    assert alone["steps/kappa"] == alone["first_error/same"] == alone["picks/same"] == 1
    assert alone["steps/spearman"] == pytest.approx(1)


def test_a_second_judge_may_add_something():
    cases = [case(str(i), ["s"], 0 if i < 2 else None) for i in range(4)]
    # Each sees one of the wrong ones.
    a = judged(cases, [[0.1], [0.7], [0.6], [0.8]])
    b = judged(cases, [[0.7], [0.1], [0.8], [0.6]])
    assert values_of(agreement(a, b), 4)["together/auc_gain"] == pytest.approx(1 - 0.75)


@given(trajectories(), st.sampled_from(sorted(CHANGES)), st.integers(0, 99))
def test_changes_keep_track_of_every_step(trajectory, name, seed):
    changed = CHANGES[name](trajectory, random.Random(seed))
    if changed is None:
        observed = all(s.observation is not None for s in trajectory.steps[:-1])
        assert len(trajectory.steps) < 2 or name == "split" or (name == "merged" and observed)
        return
    now, origin = changed
    assert now.problem == trajectory.problem
    assert len(now.steps) == len(origin)
    assert set(itertools.chain(*origin)) == set(range(len(trajectory.steps)))
    for step, old in zip(now.steps, origin, strict=True):
        before = [trajectory.steps[i].text for i in old]
        if name in ("reordered", "merged"):
            assert step.text == (trajectory.separator or "").join(before)
        elif name in ("empty_words", "confidence"):
            assert step.text.endswith(before[0])
        elif name == "split":
            assert step.text.strip() in before[0].strip()
    # Equal neighbours may change places unseen.
    assert now.steps != trajectory.steps or name == "reordered"
    again = CHANGES[name](trajectory, random.Random(seed))
    assert again == changed


def test_shifts():
    cases = [case("a", ["x", "y", "z"])]
    ((_, merged),) = changed_cases(cases, "merged", 0)
    where = next(i for i, old in enumerate(merged.origin) if len(old) == 2)
    first, second = merged.origin[where]
    assert shift(first, where, merged) == (False, False)
    assert shift(second, where, merged) == (False, False)
    other = next(i for i in range(3) if i not in (first, second))
    assert shift(other, where, merged) == (False, True)
    assert shift(None, where, merged) == (True, True)
    assert shift(first, None, merged) == (True, True)
    assert shift(None, None, merged) == (False, False)


class Reader:
    """Calls a step wrong that has a word in it; unless it is gullible and somebody is sure."""

    def __init__(self, word, gullible):
        self.word, self.gullible = word, gullible

    def __call__(self, cases):
        found = []
        for one in cases:
            values = [0.1 if self.word in s.text else 0.9 for s in one.record.trajectory.steps]
            if self.gullible and any("sure" in s.text for s in one.record.trajectory.steps):
                values = [0.9] * len(values)
            found.append(Judgement(StepScores(values=tuple(values), semantics="value", model="m")))
        return found


def test_robustness_of_a_judge_that_is_swayed_and_of_one_that_is_not():
    cases = [
        case(str(i), [f"right one {i}, and more", f"wrong two {i}, and more", "three, and four"], 1)
        for i in range(6)
    ]
    bootstrap = Bootstrap(6, 100)
    for gullible in (False, True):
        reader = Reader("wrong", gullible)
        figures = robustness(
            cases, reader(cases), lambda _, some, r=reader: r(some), Protocol(), bootstrap
        )
        for name in CHANGES:
            swayed = gullible and name == "confidence"
            verdict = figures[f"robustness/{name}/verdict_changed"]
            assert verdict.n == 6
            assert (verdict.value > 0) == swayed
        # The wrong step stays the wrong step, wherever it goes.
        assert figures["robustness/reordered/place_changed"].value == 0
    silent = [Judgement(Unscored(reason="r"))] * 6
    nothing = robustness(cases, silent, lambda _, some: reader(some), Protocol(), bootstrap)
    assert nothing["robustness/merged/verdict_changed"].value is None


def test_contamination():
    training = [
        "What is 1 + 1?",
        "A train leaves the town at nine and goes sixty miles an hour for two hours: how far?",
    ]
    problems = [
        "what is  1+1",
        "A train leaves the city at nine and goes sixty miles an hour for two hours: how far?",
        "A train stands still.",
        "Something else entirely that has more than eight words in it, is it not so?",
    ]
    found = contamination(problems, training)
    assert [(o.problem, o.training) for o in found] == [(0, 0), (1, 1)]
    assert found[0].exact
    assert not found[1].exact
    # 17 words have 10 runs of 8; the four around the other word are not shared... by hand:
    words = words_of(problems[1])
    runs = [words[i : i + 8] for i in range(len(words) - 7)]
    there = words_of(training[1])
    shared = [r for r in runs if r in [there[i : i + 8] for i in range(len(there) - 7)]]
    assert found[1].share == pytest.approx(len(shared) / len(runs))
    assert contamination(problems, []) == []
    assert contamination([], training) == []
    assert len(contamination(problems, training, share=0.9)) == 1
