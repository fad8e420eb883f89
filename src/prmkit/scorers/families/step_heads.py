r"""prmkit's own families beside `step_end`: other heads, read at the same places.

``step_value`` has one number whose sigmoid is the chance that the step is right, ``step_rank`` one
whose order alone counts, ``step_classes`` three classes of human ratings.

Header: paper none; models trained by ``prm train --kind value|rank|pairs|classes``.
"""

from __future__ import annotations

from dataclasses import replace

from prmkit.scorers.families.heads import Linear
from prmkit.scorers.families.reading import Numbers, sigmoid_of_one, softmax
from prmkit.scorers.families.step_end import STEP_END_FAMILY


def not_wrong(numbers: Numbers) -> list[float]:
    """[S, 3] logits of wrong, neutral and right to P(neutral) + P(right)."""
    return [min(neutral + right, 1.0) for _, neutral, right in map(softmax, numbers)]


VALUE = replace(
    STEP_END_FAMILY,
    name="step_value",
    about="prmkit's own: one number at each step's line end; score = its sigmoid.",
    read=sigmoid_of_one,
    head=Linear(1),
)
RANK = replace(
    VALUE,
    name="step_rank",
    about="prmkit's own: one number at each step's line end whose order counts; its sigmoid.",
    semantics="value",
)
CLASSES = replace(
    STEP_END_FAMILY,
    name="step_classes",
    about="prmkit's own: wrong, neutral, right at each step's line end; P(neutral) + P(right).",
    read=not_wrong,
    head=Linear(3),
)
