"""The families of reward models that prmkit can read, by name."""

from __future__ import annotations

from prmkit.errors import UnknownName
from prmkit.scorers.families import (
    act_prm,
    er_prm,
    gen_prm,
    granite,
    implicit_prm,
    judge,
    llemma,
    math_minos,
    math_psa,
    math_shepherd,
    med_prm,
    outcome,
    pqm,
    pure,
    qwen_prm,
    r_prm,
    reasoneval,
    rlhflow,
    skywork,
    step_end,
    step_heads,
    think_prm,
    trl,
    universal_prm,
    versa_prm,
)
from prmkit.scorers.families.base import Discriminative, Generative, Implicit, Piece, Rendered
from prmkit.scorers.families.log_ratio import CONTRAST, LIKELIHOOD, log_ratio_family

__all__ = [
    "DISCRIMINATIVE",
    "GENERATIVE",
    "IMPLICIT",
    "Discriminative",
    "Generative",
    "Implicit",
    "Piece",
    "Rendered",
    "discriminative",
]

DISCRIMINATIVE: dict[str, Discriminative] = {
    found.name: found
    for found in (
        step_end.STEP_END_FAMILY,
        step_heads.VALUE,
        step_heads.TURN_VALUE,
        step_heads.TURN_STATE,
        step_heads.RANK,
        step_heads.CLASSES,
        math_shepherd.FAMILY,
        rlhflow.FAMILY,
        rlhflow.BLANK_LINE,
        skywork.FAMILY,
        qwen_prm.FAMILY,
        qwen_prm.REASONFLUX,
        reasoneval.FAMILY,
        reasoneval.REDUNDANCY,
        reasoneval.LARGE,
        reasoneval.LARGE_REDUNDANCY,
        pure.FAMILY,
        trl.BLANK_LINE,
        trl.LINE,
        math_minos.FAMILY,
        llemma.FAMILY,
        universal_prm.FAMILY,
        universal_prm.WITH_REFERENCE,
        versa_prm.FAMILY,
        math_psa.FAMILY,
        er_prm.FAMILY,
        pqm.FAMILY,
        med_prm.FAMILY,
        granite.FAMILY,
        act_prm.FAMILY,
        outcome.FAMILY,
        outcome.PROBABILITY,
        outcome.AGENT_PRM,
    )
}
"""Families with a head, read at one position per step."""

IMPLICIT: dict[str, Implicit] = {
    found.name: found
    for found in (
        log_ratio_family(),
        implicit_prm.FAMILY,
        implicit_prm.CUMULATED,
        CONTRAST,
        LIKELIHOOD,
    )
}
"""Families that ask how likely a step is, most of them to two language models."""


GENERATIVE: dict[str, Generative] = {
    found.name: found
    for found in (
        judge.FAMILY,
        think_prm.FAMILY,
        r_prm.FAMILY,
        gen_prm.FAMILY,
        gen_prm.WITH_CODE,
    )
}
"""Families that judge in words."""


def discriminative(name: str) -> Discriminative:
    """The discriminative family of that name.

    Raises:
        UnknownName: naming the near matches.
    """
    if name not in DISCRIMINATIVE:
        raise UnknownName("family of reward models", name, DISCRIMINATIVE)
    return DISCRIMINATIVE[name]
