"""Is the judge right? Measures, pure; each is for plain numbers and says how many they were."""

from prmkit.evaluation.best_of_n import (
    Draws,
    best_of_n,
    majority_at_n,
    pass_at_n,
    weighted_vote_at_n,
)
from prmkit.evaluation.bootstrap import Interval, paired_bootstrap
from prmkit.evaluation.calibration import Bin, Calibration, calibration
from prmkit.evaluation.first_error import FirstErrorScore, predicted_first_error, processbench_f1
from prmkit.evaluation.pools import Curves, Measured, PoolSettings, measure_pools
from prmkit.evaluation.ranking import WithinGroups, pr_auc, roc_auc, within_group_auc

__all__ = [
    "Bin",
    "Calibration",
    "Curves",
    "Draws",
    "FirstErrorScore",
    "Interval",
    "Measured",
    "PoolSettings",
    "WithinGroups",
    "best_of_n",
    "calibration",
    "majority_at_n",
    "measure_pools",
    "paired_bootstrap",
    "pass_at_n",
    "pr_auc",
    "predicted_first_error",
    "processbench_f1",
    "roc_auc",
    "weighted_vote_at_n",
    "within_group_auc",
]
