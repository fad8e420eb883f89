"""What travels: problems, steps, trajectories, and what is known of their steps.

Every other module of prmkit takes these records or makes them. They are frozen, refuse unknown
fields, and one definition gives validation, the file format and the JSON Schema
(`json_schema`). Text is kept exactly: the steps of a trajectory join back to what was written.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

Finish = Literal["eos", "answer", "length", "aborted", "error", "open"]
LabelKind = Literal["hard", "soft", "human"]
Semantics = Literal["correctness", "value", "advantage", "log_ratio"]

SCHEMA_VERSION: Literal[1] = 1


class _Frozen(BaseModel):
    """Frozen, strict about unknown fields, finite numbers only."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="strings"
    )


def _encodable(text: str) -> str:
    """Refuse half of a surrogate pair, which no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} is {text[error.start]!r}, half of a surrogate pair, which "
            "is no text; decode the source with errors='replace'"
        ) from None
    return text


def _encodable_json(value: JsonValue) -> JsonValue:
    """The same for every text inside of a JSON value."""
    if isinstance(value, str):
        _encodable(value)
    elif isinstance(value, list):
        for item in value:
            _encodable_json(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _encodable(key)
            _encodable_json(item)
    return value


Text = Annotated[str, AfterValidator(_encodable)]
Meta = Annotated[dict[str, JsonValue], AfterValidator(_encodable_json)]


class Message(_Frozen):
    """One turn of a conversation."""

    role: Text
    content: Text


class Problem(_Frozen):
    """What is to be solved: a prompt, or a conversation that ends before the answer.

    Attributes:
        id: unique within its data set.
        prompt: the question as text; None where `messages` holds it.
        messages: the question as a conversation; None where `prompt` holds it.
        answer: the reference answer, where known.
        images: paths or URLs of images that belong to the question.
        meta: anything else that the source says, as JSON.
    """

    id: Text
    prompt: Text | None = None
    messages: tuple[Message, ...] | None = None
    answer: Text | None = None
    images: tuple[Text, ...] = ()
    meta: Meta = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError(
                f"problem {self.id!r} needs exactly one of 'prompt' (text) "
                "and 'messages' (a conversation)"
            )
        return self

    @property
    def text(self) -> str:
        """The question as one text; the turns of a conversation are joined by blank lines."""
        if self.prompt is not None:
            return self.prompt
        return "\n\n".join(message.content for message in self.messages or ())


class Step(_Frozen):
    """One step of a trajectory.

    Attributes:
        text: what the policy wrote; this is what is scored.
        observation: what an environment answered; context only.
    """

    text: Text
    observation: Text | None = None


class Trajectory(_Frozen):
    """A solution, whole or in part, as a sequence of steps.

    Attributes:
        problem: what it solves.
        steps: the steps, in order.
        separator: what stood between the steps. A splitter keeps every character in the steps
            and leaves this empty; data sets that store steps as a list name their separator.
        finish: why it ended: end of text, a final answer, the length limit, aborted by the
            caller, an error, or still open.
        answer: the final answer that it gives, where extracted.
        correct: whether that answer is right, where known.
        generator: the policy that wrote it.
    """

    version: Literal[1] = SCHEMA_VERSION
    problem: Problem
    steps: tuple[Step, ...] = ()
    separator: Text = ""
    finish: Finish = "open"
    answer: Text | None = None
    correct: bool | None = None
    generator: Text | None = None

    @property
    def text(self) -> str:
        """The steps as one text, exactly as written."""
        return self.separator.join(step.text for step in self.steps)

    @property
    def key(self) -> str:
        """The SHA-256 of the record's JSON: equal for equal trajectories, on any machine."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def prefix(self, n_steps: int) -> Trajectory:
        """The first `n_steps` steps as an open trajectory.

        Raises:
            ValueError: if there are fewer steps than that.
        """
        if not 0 <= n_steps <= len(self.steps):
            raise ValueError(
                f"a prefix of {n_steps} steps was asked of a trajectory of {len(self.steps)}"
            )
        return Trajectory(
            problem=self.problem,
            steps=self.steps[:n_steps],
            separator=self.separator,
            generator=self.generator,
        )


class StepLabels(_Frozen):
    """How good each step really is, one value per step.

    Attributes:
        values: one per step; None where a step is not labelled.
        kind: ``hard`` (0 or 1), ``soft`` (in [0, 1]) or ``human`` (ratings -1, 0, 1).
        successes: of the rollouts from each step, how many reached the reference answer.
        trials: how many rollouts were run from each step.
        certainty: how likely each label is the true one, in [0, 1], where its maker can tell;
            training may weight by it.
        source: where the labels come from, such as ``"PRM800K"``.
    """

    values: tuple[float | None, ...]
    kind: LabelKind
    successes: tuple[int | None, ...] | None = None
    trials: tuple[int | None, ...] | None = None
    certainty: tuple[float | None, ...] | None = None
    source: Text | None = None

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        allowed = {"hard": "0 or 1", "soft": "in [0, 1]", "human": "-1, 0 or 1"}[self.kind]
        for index, value in enumerate(self.values):
            if value is None:
                continue
            fits = {
                "hard": value in (0, 1),
                "soft": 0 <= value <= 1,
                "human": value in (-1, 0, 1),
            }[self.kind]
            if not fits:
                raise ValueError(
                    f"label {index} is {value!r}; {self.kind} labels are {allowed}, "
                    "or null where a step is not labelled"
                )
        if self.certainty is not None:
            if len(self.certainty) != len(self.values):
                raise ValueError(
                    f"{len(self.values)} labels with {len(self.certainty)} certainties"
                )
            for index, sure in enumerate(self.certainty):
                if sure is not None and not 0 <= sure <= 1:
                    raise ValueError(f"certainty {index} is {sure!r}; it is from 0 to 1")
        if (self.successes is None) != (self.trials is None):
            raise ValueError("'successes' and 'trials' come together; only one was given")
        if self.successes is not None and self.trials is not None:
            if not len(self.successes) == len(self.trials) == len(self.values):
                raise ValueError(
                    f"{len(self.values)} labels with {len(self.successes)} successes and "
                    f"{len(self.trials)} trials; all three need one entry per step"
                )
            for won, ran in zip(self.successes, self.trials, strict=True):
                if (won is None) != (ran is None) or (
                    won is not None and ran is not None and not 0 <= won <= ran
                ):
                    raise ValueError(f"{won!r} successes of {ran!r} trials is not possible")
        return self

    @property
    def first_error(self) -> int | None:
        """The 0-based first step labelled wrong: 0 of hard labels and soft ones, -1 of ratings."""
        wrong = -1 if self.kind == "human" else 0
        return next((i for i, value in enumerate(self.values) if value == wrong), None)


class StepScores(_Frozen):
    """How good a model says that each step is: finite, one value per step, no holes.

    Attributes:
        values: one per step.
        semantics: what a value means: ``correctness`` (probability that the step is right, in
            [0, 1]), ``value`` (expected success from here on), ``advantage`` (change in value)
            or ``log_ratio`` (of two models).
        model: the scorer.
    """

    type: Literal["scores"] = "scores"
    values: tuple[float, ...]
    semantics: Semantics
    model: Text

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        if self.semantics == "correctness":
            for index, value in enumerate(self.values):
                if not 0 <= value <= 1:
                    raise ValueError(
                        f"score {index} is {value!r}; a correctness is a probability in [0, 1]"
                    )
        return self


class Unscored(_Frozen):
    """Not scored, and why. Counted beside every mean; never zero, never NaN."""

    type: Literal["unscored"] = "unscored"
    reason: Text
    model: Text | None = None


Scored = Annotated[StepScores | Unscored, Field(discriminator="type")]


class Record(_Frozen):
    """A trajectory with what is known of its steps: one line of a records file."""

    version: Literal[1] = SCHEMA_VERSION
    trajectory: Trajectory
    labels: StepLabels | None = None
    scores: tuple[Scored, ...] = ()
    meta: Meta = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_value_per_step(self) -> Self:
        n_steps = len(self.trajectory.steps)
        if self.labels is not None and len(self.labels.values) != n_steps:
            raise ValueError(f"{len(self.labels.values)} labels for {n_steps} steps")
        for scored in self.scores:
            if isinstance(scored, StepScores) and len(scored.values) != n_steps:
                raise ValueError(
                    f"{len(scored.values)} scores by {scored.model!r} for {n_steps} steps"
                )
        return self

    def replace(self, **changes: object) -> Record:
        """A copy with some fields changed, validated again."""
        return Record.model_validate({**dict(self), **changes})


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a `Record`, and with it of every record it holds."""
    return Record.model_json_schema()
