"""Figures of four counts, against published tables and by hand."""

import numpy as np
import pytest

from prmkit.evaluation.classification import f1, macro_f1, matthews, mr_score
from prmkit.evaluation.prm_score import invalid_f1, prm_score, valid_f1, valid_score

# MR-GSM8K's README of January 2024, of 1,427 right and 1,573 wrong solutions: right ones and
# wrong ones that were called so, first wrong steps found, reasons accepted; MCC and MR-Score.
MR_GSM8K = {
    "Claude2": (962, 1056, 331, 185, 0.345, 0.191),
    "GPT3-5": (1125, 621, 179, 73, 0.198, 0.097),
    "GPT4": (985, 1425, 823, 677, 0.614, 0.495),
    "WizardMath-70B": (1176, 43, 6, 1, -0.250, 0.001),
    "Mammoth-70B": (1410, 43, 4, 1, 0.055, 0.012),
    "MetaMath-70B": (1305, 166, 22, 6, 0.034, 0.013),
    "llama2-70B-diag": (453, 1156, 327, 99, 0.058, 0.105),
}


@pytest.mark.parametrize("model", MR_GSM8K)
def test_published_mr_scores(model):
    tp, tn, steps, reasons, mcc, mr = MR_GSM8K[model]
    found = matthews(np.array(tp), np.array(1573 - tn), np.array(tn), np.array(1427 - tp))
    assert float(found) == pytest.approx(mcc, abs=5.1e-4)
    score = mr_score(found, np.array(steps / 1573), np.array(reasons / 1573))
    assert float(score) == pytest.approx(mr, abs=5.1e-4)


def test_the_current_table_agrees_with_the_formula():
    # GPT-4-Turbo without examples: 63.3, 48.8, 46.3 give 50.5.
    assert float(mr_score(np.array(63.3), np.array(48.8), np.array(46.3))) == pytest.approx(50.45)
    assert float(mr_score(np.array(-0.2), np.array(0.1), np.array(0.0))) == pytest.approx(0.03)


def test_by_hand():
    counts = [np.array([v], dtype=float) for v in (6, 2, 3, 1)]
    tp, fp, _, fn = counts
    # Right: precision 6/8, recall 6/7; wrong: precision 3/4, recall 3/5.
    assert f1(tp, fp, fn)[0] == pytest.approx(12 / 15)
    assert macro_f1(*counts)[0] == pytest.approx((12 / 15 + 6 / 9) / 2)
    assert prm_score(*counts)[0] == pytest.approx((12 / 15 + 6 / 9) / 2)
    assert matthews(*counts)[0] == pytest.approx((18 - 2) / (8 * 7 * 5 * 4) ** 0.5)


@pytest.mark.parametrize(
    ("counts", "valid", "invalid", "score"),
    [
        # All called valid: no step was called invalid, so that precision is -1 and the recall 0.
        ((70307, 13149, 0, 0), 2 * 70307 / (2 * 70307 + 13149), 0, 0.457),
        # All called invalid, and they are.
        ((0, 0, 4, 0), -1, 1, 0),
        # Each is called the opposite: both ratios are 0, and there is no F1.
        ((0, 3, 0, 2), -1, -1, 0),
        # Nothing at all.
        ((0, 0, 0, 0), -1, -1, 0),
    ],
)
def test_prm_score_where_ratios_are_of_nothing(counts, valid, invalid, score):
    arrays = [np.array([v], dtype=float) for v in counts]
    assert valid_f1(*arrays)[0] == pytest.approx(valid)
    assert invalid_f1(*arrays)[0] == pytest.approx(invalid)
    assert prm_score(*arrays)[0] == pytest.approx(score, abs=5e-4)
    assert valid_score(*arrays)[0] == pytest.approx(max(valid, 0))


def test_no_class_no_crash():
    nothing = [np.zeros(1)] * 4
    assert matthews(*nothing)[0] == 0
    assert macro_f1(*nothing)[0] == 0
