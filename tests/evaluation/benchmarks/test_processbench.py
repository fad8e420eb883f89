"""ProcessBench, by hand and by brute force."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import published_rows as rows
from by_hand import figures, from_file, of, scored
from prmkit.evaluation import processbench_f1
from prmkit.evaluation.benchmarks import BENCHMARKS
from prmkit.evaluation.benchmarks.processbench import best_threshold
from prmkit.evaluation.judgements import Judgement, verdict_of_index
from prmkit.evaluation.score_files import read_scores
from prmkit.records import StepScores, Unscored


@of("processbench")
def test_processbench_right_wrong_and_constant(cases):
    assert [case.split for case in cases] == ["gsm8k"] * 4 + ["math"] * 3
    truth = [case.record.labels.first_error for case in cases]
    assert truth == [1, None, 0, None, 1, None, 2]
    n = [len(case.record.trajectory.steps) for case in cases]
    right = [Judgement(None, verdict_of_index(t, k)) for t, k in zip(truth, n, strict=True)]
    found, _ = figures("processbench", cases, right)
    assert {found[k] for k in ("f1", "gsm8k/f1", "math/f1")} == {1.0}
    # Wrong on purpose: an error where there is none, and none where there is one.
    wrong = [
        Judgement(None, verdict_of_index(0 if t is None else None, k))
        for t, k in zip(truth, n, strict=True)
    ]
    assert figures("processbench", cases, wrong)[0]["f1"] == 0
    # "All is right": every right one, no wrong one; the harmonic mean is 0, not 0.5.
    constant = [scored(*[0.9] * k) for k in n]
    found, _ = figures("processbench", cases, constant)
    assert found["gsm8k/accuracy_right"] == 1
    assert found["gsm8k/accuracy_wrong"] == 0
    assert found["f1"] == 0


@of("processbench")
def test_processbench_mean_is_of_splits_not_of_cases(cases):
    judgements = [
        scored(0.9, 0.1, 0.9),  # found
        scored(0.9, 0.4),  # false alarm
        scored(0.9, 0.1, 0.9, 0.9),  # too late
        scored(0.5),  # the threshold itself is right
        scored(0.2, 0.1),  # too early
        scored(0.9, 0.8, 0.6),  # right
        scored(0.9, 0.8, 0.1),  # found
    ]
    found, _ = figures("processbench", cases, judgements)
    assert found["gsm8k/accuracy_wrong"] == 0.5
    assert found["gsm8k/accuracy_right"] == 0.5
    assert found["math/accuracy_wrong"] == 0.5
    assert found["math/accuracy_right"] == 1
    assert found["gsm8k/f1"] == 0.5
    assert found["math/f1"] == pytest.approx(2 / 3)
    assert found["f1"] == pytest.approx((0.5 + 2 / 3) / 2)


@of("processbench")
def test_processbench_thresholds_natural_tuned_and_own_are_apart(cases):
    judgements = [
        scored(0.9, 0.3, 0.9),
        scored(0.45, 0.42),
        scored(0.3, 0.9, 0.9, 0.9),
        scored(0.4),
        scored(0.9, 0.6),
        scored(0.7, 0.8, 0.8),
        scored(0.9, 0.9, 0.65),
    ]
    found, model = figures("processbench", cases, judgements)
    assert found["gsm8k/f1"] == 0
    assert found["tuned/gsm8k/f1"] == 1
    # Tuned on gsm8k it lies between 0.3 and 0.4: nothing is found in math.
    assert 0.3 < model.facts["threshold"] <= 0.4
    assert model.facts["tuned_on"] == "gsm8k"
    assert found["tuned/math/f1"] == 0
    assert found["optimum/math/f1"] == 1
    assert 0.65 < model.facts["threshold/math"] <= 0.7
    assert found["optimum/f1"] == 1
    other, model = figures("processbench", cases, judgements, tune_on="math")
    assert other["tuned/math/f1"] == 1
    assert model.facts["tuned_on"] == "math"


@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 1.0]), min_size=1, max_size=4),
            st.integers(-1, 3),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_the_best_threshold_is_the_best_of_all(pairs):
    scores = [values for values, _ in pairs]
    truth = [None if t < 0 or t >= len(v) else t for v, t in pairs]
    given = [StepScores(values=tuple(v), semantics="value", model="m") for v in scores]
    best = best_threshold(scores, truth)
    tried = [k / 40 for k in range(-2, 45)]
    assert best.f1 == pytest.approx(max(processbench_f1(given, truth, t).f1 for t in tried))
    assert processbench_f1(given, truth, best.value).f1 == pytest.approx(best.f1)


@of("processbench")
def test_processbench_critics_and_what_cannot_be_read(cases, tmp_path):
    answers = [1, -1, None, 0, 1, -1, 2]
    path = rows.jsonl(
        tmp_path / "critic.jsonl",
        [
            {"id": c.id, "prediction": a, "match": False, "generated_critique": "…"}
            for c, a in zip(cases, answers, strict=True)
        ],
    )
    found = from_file("processbench", cases, path)
    # One of two wrong ones is found, the other cannot be read: a miss. A right one is blamed.
    assert found["gsm8k/accuracy_wrong"] == 0.5
    assert found["gsm8k/accuracy_right"] == 0.5
    assert found["math/f1"] == 1
    assert "tuned/f1" not in found


@of("processbench")
def test_unscored_is_left_out_and_also_counted_as_a_miss(cases):
    judgements = [scored(*[0.9] * len(c.record.trajectory.steps)) for c in cases]
    judgements[1] = Judgement(Unscored(reason="too long"))
    found, model = figures("processbench", cases, judgements)
    assert found["gsm8k/accuracy_right"] == 1
    assert found["unscored_as_miss/gsm8k/accuracy_right"] == 0.5
    assert (model.scored, model.unscored, model.reasons) == (6, 1, {"too long": 1})


@of("processbench")
def test_a_split_without_scores_is_no_part_of_the_mean(cases):
    truth = [c.record.labels.first_error for c in cases]
    judgements = [
        scored(*(0.1 if i == t else 0.9 for i in range(len(c.record.trajectory.steps))))
        if c.split == "gsm8k"
        else Judgement(Unscored(reason="r"))
        for c, t in zip(cases, truth, strict=True)
    ]
    found, _ = figures("processbench", cases, judgements)
    assert found["f1"] == 1
    assert found["unscored_as_miss/f1"] == 0.5


def test_genprm_rewards(tmp_path):
    cases = BENCHMARKS["processbench"].read(rows.processbench(tmp_path / "d"))
    line = {"id": "gsm8k-0", "rewards": [[0.9, 0.1, 0.8], [0.2, 0.2, 0.2]]}
    path = rows.jsonl(tmp_path / "genprm.jsonl", [line])
    judges = read_scores(path, BENCHMARKS["processbench"], cases)
    assert judges["genprm"]["gsm8k-0"].scores.values == (0.9, 0.1, 0.8)
