"""Logistic regression: the one fit that calibrations and combinations share."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def fit_logistic(columns: Floats, right: Floats, penalty: Floats) -> list[float]:
    """The weights of least penalised cross-entropy, by Newton's method with halved steps.

        minimise  mean_n [ log(1 + exp(z_n)) - y_n z_n ] + ½ Σ_k penalty_k w_k²,   z = X w

    Args:
        columns: [N, K] inputs X.
        right: [N] outcomes y, 0 or 1.
        penalty: [K] of each weight, above 0 where the outcomes can be separated.
    """

    def loss(weights: Any) -> float:
        z = columns @ weights
        return float((np.logaddexp(0, z) - right * z).mean() + (penalty * weights**2).sum() / 2)

    weights = np.zeros(columns.shape[1])
    for _ in range(200):
        p = 1 / (1 + np.exp(-np.clip(columns @ weights, -500, 500)))
        gradient = columns.T @ (p - right) / len(right) + penalty * weights
        curvature = (columns * (p * (1 - p))[:, None]).T @ columns / len(right)
        step = np.linalg.solve(curvature + np.diag(penalty + 1e-12), gradient)
        size = 1.0
        while loss(weights - size * step) > loss(weights) and size > 1e-10:
            size /= 2
        weights = weights - size * step
        if np.abs(size * step).max() < 1e-10:
            break
    return [float(weight) for weight in weights]
