"""ActPRM: Qwen's recipe with an ensemble of small heads at ``<extra_0>`` behind each step.

Each head is three layers with one output; score = the mean of their sigmoids.

Header: Duan et al. 2025, arXiv:2504.10559; sail/ActPRM, sail/ActPRM-X. The authors' scripts
disagree on the system message (training has the template's own, one evaluation another); this is
that of their usage example and their PRMBench run, which is Qwen's.
"""

from __future__ import annotations

import math

from prmkit.scorers.families import qwen_prm
from prmkit.scorers.families.base import Discriminative
from prmkit.scorers.families.heads import StackedHeads
from prmkit.scorers.families.reading import Numbers, sigmoid


def mean_of_heads(numbers: Numbers) -> list[float]:
    """[S, M] logits of M heads to the mean of their probabilities."""
    return [math.fsum(map(sigmoid, of_step)) / len(of_step) for of_step in numbers]


FAMILY = Discriminative(
    name="act_prm",
    about="ActPRM: Qwen's recipe with an ensemble of small heads at its tag behind each step.",
    begin=qwen_prm.begin,
    step=qwen_prm.step,
    read=mean_of_heads,
    head=StackedHeads(),
    semantics="correctness",
    tags=(qwen_prm.TAG,),
)
