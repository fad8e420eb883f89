"""Two classes, right and wrong: figures of the four counts of a confusion table.

Every function takes counts as arrays of one shape and gives an array of that shape: one entry per
data set of a bootstrap. Right is the positive class: ``tp`` are right ones called right, ``fp``
wrong ones called right, ``tn`` wrong ones called wrong, ``fn`` right ones called wrong.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def _over(above: Floats, below: Floats, otherwise: float) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = np.where(below != 0, above / below, otherwise)
    return result


def f1(tp: Floats, fp: Floats, fn: Floats) -> Floats:
    """2 tp / (2 tp + fp + fn); 0 where nothing is of the class or called so."""
    return _over(2 * tp, 2 * tp + fp + fn, 0.0)


def macro_f1(tp: Floats, fp: Floats, tn: Floats, fn: Floats) -> Floats:
    """The plain mean of the F1 of the right ones and the F1 of the wrong ones."""
    return (f1(tp, fp, fn) + f1(tn, fn, fp)) / 2


def matthews(tp: Floats, fp: Floats, tn: Floats, fn: Floats) -> Floats:
    """Matthews' correlation coefficient, in [-1, 1]; 0 where a row or a column is empty.

    Reference: Matthews 1975; as in MR-GSM8K, arXiv:2312.17080, eq. 1.
    """
    below = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return _over(tp * tn - fp * fn, below, 0.0)


def mr_score(mcc: Floats, step_accuracy: Floats, reason_accuracy: Floats) -> Floats:
    """0.2 max(0, MCC) + 0.3 ACC_step + 0.5 ACC_reason.

    Reference: Zeng et al. 2023, MR-GSM8K, arXiv:2312.17080, eq. 2.
    """
    return 0.2 * np.maximum(mcc, 0.0) + 0.3 * step_accuracy + 0.5 * reason_accuracy
