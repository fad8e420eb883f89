"""How labels are converted: every choice that loses or decides something is the user's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prmkit.errors import FormatError, InvalidSetting, LabelPolicyNeeded
from prmkit.records import LabelKind, Record, StepLabels

Neutral = Literal["positive", "negative", "drop"]
AfterError = Literal["keep", "negative", "drop"]


@dataclass(frozen=True, kw_only=True)
class LabelPolicy:
    """What to do with labels when they are converted.

    Published practice differs on each point, so nothing is decided silently: where a choice is
    needed and not made, the conversion stops and names the choices.

    Attributes:
        neutral: what a human rating of 0 becomes: ``positive`` (as Qwen's PRM800K models),
            ``negative`` (as TRL's data) or ``drop`` (not labelled). Naming one turns human
            ratings into hard labels.
        after_error: labels after the first wrong step: ``keep`` them, make them ``negative`` (as
            Math-Shepherd) or ``drop`` them (as PRM800K's phase 2 and ProcessBench).
        threshold: a soft label above it is positive; 0 means "any rollout succeeded". Naming one
            turns soft labels into hard ones.
    """

    neutral: Neutral | None = None
    after_error: AfterError = "keep"
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise InvalidSetting(
                f"threshold is {self.threshold!r}; labels lie in [0, 1] and are positive above it, "
                "so it must be at least 0 and below 1"
            )

    def apply(self, labels: StepLabels) -> StepLabels:
        """Labels by this policy; of the same kind where it names no conversion."""
        if labels.kind == "human" and self.neutral is not None:
            neutral = {"positive": 1.0, "negative": 0.0, "drop": None}[self.neutral]
            mapping = {1.0: 1.0, 0.0: neutral, -1.0: 0.0, None: None}
            labels = _with(labels, tuple(mapping[v] for v in labels.values), "hard")
        elif labels.kind == "soft" and self.threshold is not None:
            values = tuple(None if v is None else float(v > self.threshold) for v in labels.values)
            labels = _with(labels, values, "hard")
        first = labels.first_error
        if first is None or self.after_error == "keep":
            return labels
        lowest = -1.0 if labels.kind == "human" else 0.0
        rest = None if self.after_error == "drop" else lowest
        kept = labels.values[: first + 1]
        after = (rest,) * (len(labels.values) - first - 1)
        # Counts of rollouts do not go with labels that no rollout gave.
        return StepLabels(values=kept + after, kind=labels.kind, source=labels.source)

    def hard(self, record: Record, what: str) -> tuple[float | None, ...]:
        """The hard labels of a record, for a format that holds nothing else.

        Args:
            record: with labels.
            what: the format, for the message.

        Raises:
            FormatError: if the record has no labels.
            LabelPolicyNeeded: if that needs a choice that was not made.
        """
        labels = self.apply(labelled(record, what))
        if labels.kind == "soft" and any(v not in (0, 1, None) for v in labels.values):
            raise LabelPolicyNeeded(
                f"{what} holds right or wrong alone, and these labels are soft: "
                f"{_shown(labels)}. Say above which value a step is right: threshold "
                "(--threshold 0 for any rollout, --threshold 0.5 for most of them)"
            )
        if labels.kind == "human":
            if 0.0 in labels.values:
                raise LabelPolicyNeeded(
                    f"{what} holds right or wrong alone, and step {labels.values.index(0.0)} is "
                    "rated neutral. Say what a neutral rating becomes: "
                    "--neutral positive, negative or drop"
                )
            return tuple({1.0: 1.0, -1.0: 0.0, None: None}[v] for v in labels.values)
        return labels.values


def labelled(record: Record, what: str) -> StepLabels:
    """The labels of a record that a format needs.

    Raises:
        FormatError: if it has none.
    """
    if record.labels is None or all(v is None for v in record.labels.values):
        raise FormatError(
            f"{what} holds labelled steps, and the solution of problem "
            f"{record.trajectory.problem.id!r} has no label; label it first "
            "(prm label), or leave such rows out (--skip-bad)"
        )
    return record.labels


def joined_steps(
    record: Record, values: tuple[float | None, ...], joint: str
) -> list[tuple[str, float]]:
    """Texts with labels, for formats that cannot leave a step unlabelled.

    A step without a label is joined, by `joint`, to the next one that has a label; those after
    the last label are left out.
    """
    result: list[tuple[str, float]] = []
    waiting: list[str] = []
    for step, value in zip(record.trajectory.steps, values, strict=True):
        waiting.append(step.text)
        if value is not None:
            result.append((joint.join(waiting), value))
            waiting = []
    return result


def _with(labels: StepLabels, values: tuple[float | None, ...], kind: LabelKind) -> StepLabels:
    return StepLabels.model_validate({**dict(labels), "values": values, "kind": kind})


def _shown(labels: StepLabels) -> str:
    return ", ".join(f"{v:.3g}" for v in labels.values[:6] if v is not None)
