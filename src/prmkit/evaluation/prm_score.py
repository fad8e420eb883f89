"""PRMBench's PRMScore, with the conventions of its official evaluator.

Counts are of steps; valid is the positive class. A ratio over nothing is -1 there, an F1 is
computed from such ratios as from any other, and a final figure below 0 is shown as 0.

Reference: Song et al. 2025, arXiv:2501.03124, section 3.3, and its evaluator.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

UNDEFINED = -1.0


def _ratio(hits: Floats, of: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        share: Floats = np.where(of > 0, hits / of, UNDEFINED)
    return share


def _f1(precision: Floats, recall: Floats) -> Floats:
    total = precision + recall
    with np.errstate(invalid="ignore", divide="ignore"):
        f1: Floats = np.where(total != 0, 2 * precision * recall / total, UNDEFINED)
    return f1


def valid_f1(tp: Floats, fp: Floats, tn: Floats, fn: Floats) -> Floats:
    """The F1 of valid steps; -1 where it is not defined."""
    del tn
    return _f1(_ratio(tp, tp + fp), _ratio(tp, tp + fn))


def invalid_f1(tp: Floats, fp: Floats, tn: Floats, fn: Floats) -> Floats:
    """The F1 of invalid steps; -1 where it is not defined."""
    del tp
    return _f1(_ratio(tn, tn + fn), _ratio(tn, tn + fp))


def prm_score(tp: Floats, fp: Floats, tn: Floats, fn: Floats) -> Floats:
    """Half the F1 of valid steps and half that of invalid ones; not below 0.

    Args:
        tp: valid steps judged valid.
        fp: invalid steps judged valid.
        tn: invalid steps judged invalid.
        fn: valid steps judged invalid.
    """
    both = 0.5 * valid_f1(tp, fp, tn, fn) + 0.5 * invalid_f1(tp, fp, tn, fn)
    return np.maximum(both, 0.0)


def valid_score(tp: Floats, fp: Floats, tn: Floats, fn: Floats) -> Floats:
    """The F1 of valid steps alone, not below 0: for rows without a wrong step."""
    return np.maximum(valid_f1(tp, fp, tn, fn), 0.0)
