"""What can be trained: how a model is read, what it learns from, by which loss.

A family says how a model reads and what its numbers mean; a kind, how such a model is trained. The
two meet in an objective: of heads, the class that means "right" is found by asking the family's own
`read`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from prmkit.chat import Tokenizer, single_token
from prmkit.errors import InvalidSetting, UnknownName
from prmkit.records import Record
from prmkit.scorers.families import DISCRIMINATIVE, GENERATIVE, IMPLICIT
from prmkit.scorers.families.base import Discriminative, Generative, Implicit
from prmkit.scorers.families.heads import Linear, TokenRows
from prmkit.training.critiques import WritingObjective, make_critiques
from prmkit.training.episodes import PromiseSettings
from prmkit.training.heads import HeadObjective
from prmkit.training.implicit import ImplicitObjective, ImplicitSettings, check_reference
from prmkit.training.losses import LossName
from prmkit.training.objective import Objective
from prmkit.training.targets import (
    Dropped,
    Example,
    Taught,
    Weighting,
    make_examples,
    make_responses,
)

KindName = Literal[
    "step",
    "value",
    "tokens",
    "classes",
    "rank",
    "pairs",
    "outcome",
    "outcome_tokens",
    "implicit",
    "generative",
]
Family = Discriminative | Implicit | Generative


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of model.

    Attributes:
        about: what it is, in a line.
        family: how it reads, where nothing else is said.
        losses: that it may be trained with, the default first.
        what: it learns: labels of steps, ratings of them, or the outcome of a solution.
        every_token: whether an outcome is taught at every token of a solution.
        unit: what its labels are of, as it is told.
        families: among which its family is.
    """

    about: str
    family: str
    losses: tuple[LossName, ...]
    what: Taught = "shares"
    every_token: bool = False
    unit: str = "labelled steps"
    families: Mapping[str, Any]


KINDS: dict[KindName, Kind] = {
    "step": Kind(
        about="two classes at step ends, wrong and right",
        family="step_end",
        losses=("cross_entropy", "squared_error"),
        families=DISCRIMINATIVE,
    ),
    "value": Kind(
        about="one number at step ends, whose sigmoid is the chance to be right",
        family="step_value",
        losses=("cross_entropy", "squared_error", "progress", "inverse"),
        families=DISCRIMINATIVE,
    ),
    "tokens": Kind(
        about="a language model that says one of two tokens at step ends, as Math-Shepherd's",
        family="math_shepherd",
        losses=("cross_entropy", "squared_error"),
        families=DISCRIMINATIVE,
    ),
    "classes": Kind(
        about="three classes at step ends, of human ratings -1, 0, 1",
        family="step_classes",
        losses=("cross_entropy",),
        what="ratings",
        families=DISCRIMINATIVE,
    ),
    "rank": Kind(
        about="values whose order counts: right steps rise, wrong ones lie below (PQM)",
        family="step_rank",
        losses=("ranking",),
        families=DISCRIMINATIVE,
    ),
    "pairs": Kind(
        about="values of alternatives after the same prefix, the better one higher",
        family="step_rank",
        losses=("pairwise",),
        families=DISCRIMINATIVE,
    ),
    "outcome": Kind(
        about="an outcome reward model: one number behind the whole solution",
        family="outcome_probability",
        losses=("cross_entropy", "squared_error"),
        what="outcome",
        unit="outcomes",
        families=DISCRIMINATIVE,
    ),
    "outcome_tokens": Kind(
        about="an outcome reward model: one number at every token, as the verifiers of GSM8K",
        family="step_value",
        losses=("squared_error", "cross_entropy"),
        what="outcome",
        every_token=True,
        unit="labelled tokens",
        families=DISCRIMINATIVE,
    ),
    "implicit": Kind(
        about="a language model whose log-ratio to its reference scores, from outcomes alone",
        family="implicit_prm",
        losses=("cross_entropy", "preference"),
        what="outcome",
        unit="labelled tokens",
        families=IMPLICIT,
    ),
    "generative": Kind(
        about="a language model that writes critiques, from critiques that agree with labels",
        family="judge",
        losses=("cross_entropy",),
        unit="tokens to write",
        families=GENERATIVE,
    ),
}

_UNWEIGHTED = ("ranking", "pairwise", "preference", "inverse")
"""Losses without labels that weights could be of: of the order of items, or of whole episodes."""

_READ_AS: dict[LossName, str] = {"inverse": "step_rank"}
"""By what family a model is read where its loss says so: the order of its numbers alone counts."""


def family_of(kind: KindName, name: str | None = None, loss: LossName | None = None) -> Family:
    """The family that a kind is trained to be read by, by default its own or its loss' own.

    Raises:
        InvalidSetting: if there is one of that name, and it is read in another way.
        UnknownName: if there is none.
    """
    known = KINDS[kind]
    name = name or (loss and _READ_AS.get(loss)) or known.family
    if name in known.families:
        found: Family = known.families[name]
        return found
    everywhere = {**DISCRIMINATIVE, **IMPLICIT, **GENERATIVE}
    if name not in everywhere:
        raise UnknownName("family of reward models", name, known.families)
    raise InvalidSetting(
        f"the family {name} is not trained as the kind {kind} ({known.about}); that takes "
        f"{', '.join(known.families)}"
    )


def objective(
    kind: KindName,
    family: Family,
    tokenizer: Tokenizer,
    loss: LossName | None = None,
    *,
    implicit: ImplicitSettings | None = None,
    promises: PromiseSettings | None = None,
    weighting: Weighting = "none",
) -> Objective:
    """How a family is trained.

    Args:
        kind: what is trained.
        family: how it reads.
        tokenizer: the model's, with the tokens that the head reads.
        loss: by default the kind's own.
        implicit: of the kind implicit.
        promises: of the kind value.
        weighting: whether labels count by their certainty.

    Raises:
        InvalidSetting: if kind, family, loss and settings do not go together.
        CheckpointError: if the tokenizer lacks a token that is read, or the reference is none.
    """
    known = KINDS[kind]
    loss = loss or known.losses[0]
    if loss not in known.losses:
        raise InvalidSetting(
            f"the kind {kind} is not trained by {loss}; it takes {', '.join(known.losses)}"
        )
    promises = promises or PromiseSettings()
    promises.check(kind, loss)
    unlabelled = promises.temporal or loss in _UNWEIGHTED or kind == "generative"
    if weighting != "none" and unlabelled:
        raise InvalidSetting(
            f"weighting {weighting} means nothing to the kind {kind} with the loss {loss}"
            f"{' and temporal targets' if promises.temporal else ''}; leave it out"
        )
    if implicit not in (None, ImplicitSettings()) and kind != "implicit":
        raise InvalidSetting(
            f"beta and reference mean nothing to the kind {kind}; they are those of implicit"
        )
    if isinstance(family, Implicit):
        if not family.compares:
            raise InvalidSetting(
                f"the family {family.name} has no reference, so there is no log-ratio to train"
            )
        implicit = implicit or ImplicitSettings()
        if implicit.reference is not None:
            check_reference(implicit.reference, tokenizer)
        return ImplicitObjective(loss, implicit)
    if isinstance(family, Generative):
        return WritingObjective(loss)
    return replace(_of_head(kind, family, tokenizer, loss), promises=promises)


def _of_head(
    kind: KindName, family: Discriminative, tokenizer: Tokenizer, loss: LossName
) -> HeadObjective:
    head = family.head
    tokens: tuple[int, ...] = ()
    if isinstance(head, TokenRows):
        tokens = tuple(single_token(tokenizer, text) for text in head.tokens)
        n_outputs = len(tokens)
    elif isinstance(head, Linear) and "score" in head.keys:
        n_outputs = head.n_outputs
    else:
        raise InvalidSetting(
            f"the family {family.name} is read and not trained: its head is not one that "
            "transformers' classes have. Models of prmkit's own families can be converted "
            "(prm convert-model)"
        )
    fits = {
        "step": n_outputs == 2 and not tokens,
        "tokens": bool(tokens) and n_outputs == 2,
        "classes": n_outputs == 3,
        "outcome": n_outputs == 1 and family.end is not None,
    }.get(kind, n_outputs == 1 and family.end is None)
    if not fits:
        raise InvalidSetting(
            f"the family {family.name} reads {n_outputs} numbers"
            f"{' of tokens' if tokens else ''}{' behind an end' if family.end else ''}; that is "
            f"not the kind {kind} ({KINDS[kind].about})"
        )
    right = None
    if n_outputs == 2:
        (first,), (second,) = family.read([[9.0, 0.0]]), family.read([[0.0, 9.0]])
        right = int(second > first)
    return HeadObjective(loss, right, tokens, n_outputs)


def examples_of(
    records: Sequence[Record],
    kind: KindName,
    family: Family,
    tokenizer: Tokenizer,
    max_tokens: int | None,
    weighting: Weighting = "none",
) -> tuple[list[Example], Dropped]:
    """What a kind is trained on, rendered as the family will be read, and what was dropped.

    Raises:
        InvalidRecord: if a record has no labels, or of another kind.
    """
    known = KINDS[kind]
    if isinstance(family, Generative):
        return make_critiques(records, family, tokenizer, max_tokens)
    if isinstance(family, Implicit):
        return make_responses(records, family, tokenizer, max_tokens, weighting=weighting)
    return make_examples(
        records,
        family,
        tokenizer,
        max_tokens,
        what=known.what,
        weighting=weighting,
        every_token=known.every_token,
    )
