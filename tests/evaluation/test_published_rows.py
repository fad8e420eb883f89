"""Rows of published tables against facts that they were not made from."""

import numpy as np
import pytest

import by_hand
from prmkit.evaluation.benchmarks import BENCHMARKS
from prmkit.evaluation.classification import macro_f1
from published_rows import WRITERS

MISTAKE = BENCHMARKS["bigbench_mistake"]
BY_HAND = ("word_sorting", "tracking_shuffled_objects", "logical_deduction", "multistep_arithmetic")
# Some answers are missing from these: their two accuracies are of fewer chains than Table 2 counts.
INCOMPLETE = {
    ("GPT-4-Turbo, trace", "word_sorting"),
    ("GPT-4-Turbo, trace", "logical_deduction"),
    ("GPT-4-Turbo, trace", "multistep_arithmetic"),
    ("GPT-4, trace", "tracking_shuffled_objects"),
    ("GPT-3.5-Turbo, trace", "tracking_shuffled_objects"),
}


def test_mistakes_found_and_false_alarms_make_the_accuracy():
    rows = {row.model: row.figures for row in MISTAKE.published}
    assert len(rows) == 12
    for model, figures in rows.items():
        for task in BY_HAND:
            n, wrong, _ = MISTAKE.content[task]
            right, found = (figures[f"{task}/accuracy_{kind}"] for kind in ("right", "wrong"))
            whole = ((n - wrong) * right + wrong * found) / n
            # Three numbers that are rounded to 0.01 %.
            agrees = abs(whole - figures[f"{task}/accuracy"]) < 1.01e-4
            assert agrees == ((model, task) not in INCOMPLETE), (model, task)


def test_the_mean_over_tasks_is_that_of_the_table():
    for row in MISTAKE.published:
        mean = sum(row.figures[f"{task}/accuracy"] for task in MISTAKE.content) / 5
        if row.model == "PaLM 2 Unicorn, trace":  # printed as 17.09
            assert mean == pytest.approx(0.13864)
        else:
            assert row.figures["accuracy"] == pytest.approx(mean, abs=1e-4), row.model


def test_counts_of_mistakes_are_of_all_chains():
    assert sum(content.cases for content in MISTAKE.content.values()) == 2186
    assert sum(content.wrong for content in MISTAKE.content.values()) == 1708


# Of 76 right and 83 wrong solutions, and of 646 right and 83 first wrong steps: called so. They
# were counted in the scores that ReasonEval publishes, without prmkit.
CALLED_SO = {
    "ReasonEval-Llemma-34B": ((47, 81), (581, 66)),
    "Math-Shepherd-Mistral-7B": ((47, 65), (549, 34)),
}


def test_mr_math_rows_are_those_of_the_published_scores():
    known = BENCHMARKS["mr_math"]
    n, n_wrong, _ = known.content["invalid"]
    assert (n - n_wrong, n_wrong) == (76, 83)
    rows = {row.model: row.figures for row in known.published}
    assert len(rows) == len(CALLED_SO)
    for model, counts in CALLED_SO.items():
        figures = rows[f"{model} (from published scores)"]
        names = ("solution_macro_f1", "step_macro_f1")
        for name, n_right, (right, wrong) in zip(names, (76, 646), counts, strict=True):
            tp, fp, tn, fn = map(np.float64, (right, 83 - wrong, wrong, n_right - right))
            assert figures[name] == pytest.approx(macro_f1(tp, fp, tn, fn), abs=5.1e-6)
    # arXiv:2609.22700 has 88.8 for its own model's steps, and 11.3 less for this one's.
    of_34b = rows["ReasonEval-Llemma-34B (from published scores)"]
    assert of_34b["step_macro_f1"] == pytest.approx(0.888 - 0.113, abs=1e-3)


def test_who_and_when_rows_of_the_58_logs_by_hand_are_whole_counts():
    known = BENCHMARKS["who_and_when"]
    n = known.content["hand_crafted"].cases
    assert n == 58
    for row in known.published:
        if row.model != "random":
            # Printed with two digits, not always rounded. Their steps are of fewer logs, unsaid.
            count = n * row.figures["hand_crafted/containing/agent_accuracy"]
            assert count == pytest.approx(round(count), abs=0.01), row.model


@pytest.mark.parametrize("name", [name for name, known in BENCHMARKS.items() if known.published])
def test_rows_have_shares_of_figures_that_are_shown(name, tmp_path):
    known = BENCHMARKS[name]
    cases = known.read(WRITERS[name](tmp_path))
    figures, _ = by_hand.figures(name, cases, [known.right_judgement(case) for case in cases])
    assert len({row.model for row in known.published}) == len(known.published)
    for row in known.published:
        assert all(0 <= value <= 1 for value in row.figures.values()), row.model
        assert set(known.shown(list(figures))) & set(row.figures), row.model
