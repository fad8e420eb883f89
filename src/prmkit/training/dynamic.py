"""Steps as fine as the model is unsure: cut where it hesitates, joined where it does not.

A model that knows how to go on needs no supervision there; where its next token is a guess, a
decision is made, and a step begins. With one threshold for all solutions a hard problem has many
steps and an easy one few, so that granularity follows difficulty, and rollouts and labels are
spent where something is decided.

Reference: Liu et al. 2025, AdaptiveStep, arXiv:2502.13943 (cuts at tokens of low confidence, the
2 % least likely ones); coarse-to-fine, arXiv:2501.13622, for `joined` and `coarse_to_fine`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, NamedTuple

from prmkit.chat import encode_question
from prmkit.errors import InvalidRecord, InvalidSetting, NothingToMeasure
from prmkit.records import Record, Step, StepLabels, Trajectory
from prmkit.settings import at_least

if TYPE_CHECKING:
    from prmkit.scorers.backends.log_probs import LogProbs


class Token(NamedTuple):
    """A token of a solution.

    Attributes:
        start: where it begins, in characters of the solution's text.
        log_prob: how likely the model held it, given all before it.
    """

    start: int
    log_prob: float


def tokens_of(model: LogProbs, trajectories: Sequence[Trajectory]) -> list[list[Token]]:
    """How likely each token of each solution is to a language model.

    Tokens in the middle of a character, as byte-level tokenizers have them, count for the first of
    them: a text is never cut there.

    Args:
        model: the language model.
        trajectories: what it reads, the question through its chat template.

    Raises:
        InvalidRecord: if a solution is longer than the model reads.
    """
    rows, first, starts = [], [], []
    for trajectory in trajectories:
        question = encode_question(model.tokenizer, trajectory.problem)
        ids, offsets = _encoded(model, trajectory.text)
        rows.append([*question, *ids])
        first.append(max(len(question), 1))
        starts.append(offsets[max(1 - len(question), 0) :])
        if model.context is not None and len(rows[-1]) > model.context:
            raise InvalidRecord(
                f"the solution of the problem {trajectory.problem.id!r} has {len(rows[-1])} "
                f"tokens with its question; the model reads at most {model.context}"
            )
    found = []
    for of_row, places in zip(model.log_probs(rows, first), starts, strict=True):
        tokens: list[Token] = []
        for log_prob, place in zip(of_row, places, strict=True):
            if tokens and tokens[-1].start == place:
                tokens[-1] = Token(place, min(tokens[-1].log_prob, log_prob))
            else:
                tokens.append(Token(place, log_prob))
        found.append(tokens)
    return found


def _encoded(model: LogProbs, text: str) -> tuple[list[int], list[int]]:
    """Token ids of a text, and where each begins."""
    if not text:
        return [], []
    encoded = model.tokenizer(
        text,
        add_special_tokens=False,
        split_special_tokens=True,
        return_offsets_mapping=True,
        verbose=False,
    )
    return list(encoded["input_ids"]), [begin for begin, _ in encoded["offset_mapping"]]


def threshold_of(tokens: Sequence[Sequence[Token]], share: float) -> float:
    """The log-probability below which this share of all tokens lies.

    Args:
        tokens: of all solutions.
        share: such as 0.02.

    Raises:
        InvalidSetting: if it is no share.
        NothingToMeasure: if there is no token.
    """
    if not 0 < share < 1:
        raise InvalidSetting(f"share is {share!r}; it must be above 0 and below 1")
    ordered = sorted(token.log_prob for of_one in tokens for token in of_one)
    if not ordered:
        raise NothingToMeasure("there is no token of which a model could be unsure")
    return ordered[min(math.ceil(share * len(ordered)), len(ordered) - 1)]


def recut(
    trajectory: Trajectory,
    tokens: Sequence[Token],
    threshold: float,
    *,
    at: Literal["tokens", "steps"] = "tokens",
) -> Trajectory:
    """The same text in other steps.

    Args:
        trajectory: without observations: what an environment answers stands between steps.
        tokens: its own, by `tokens_of`.
        threshold: a token less likely than this is a decision.
        at: cut before each decision, wherever it is; or only join steps that hold none to the one
            before, so that steps still end where they did.

    Returns:
        Its steps join to the same text, with no separator.

    Raises:
        InvalidRecord: if there are observations.
    """
    if any(step.observation is not None for step in trajectory.steps):
        raise InvalidRecord(
            f"the solution of the problem {trajectory.problem.id!r} has an environment's answers "
            "between its steps; those steps are not ours to cut"
        )
    text = trajectory.text
    unsure = [token.start for token in tokens if token.log_prob < threshold]
    if at == "tokens":
        cuts = unsure
    else:
        # A step stays on its own if something is decided in it.
        ends, begins = _bounds(trajectory), [0, *_bounds(trajectory)]
        cuts = [
            begin
            for begin, end in zip(begins, ends, strict=False)
            if any(begin <= place < end for place in unsure)
        ]
    places = sorted({0, *cuts, len(text)})
    steps = tuple(Step(text=text[begin:end]) for begin, end in pairwise(places))
    return trajectory.model_copy(update={"steps": steps, "separator": ""})


def _bounds(trajectory: Trajectory) -> list[int]:
    """Where each step ends, with the separator behind it."""
    ends: list[int] = []
    at = 0
    for index, step in enumerate(trajectory.steps):
        last = index == len(trajectory.steps) - 1
        at += len(step.text) + (0 if last else len(trajectory.separator))
        ends.append(at)
    return ends


def joined(record: Record, size: int) -> Record:
    """Every `size` steps as one, the last group with what is left.

    What is known after a group's last step is the group's: of hard and soft labels its value, and
    of human ratings the lowest in the group. Scores of single steps are left out.

    Args:
        record: labelled or not.
        size: steps of a group.
    """
    at_least(1, size=size)
    trajectory = record.trajectory
    n = len(trajectory.steps)
    groups = [range(i, min(i + size, n)) for i in range(0, n, size)]
    steps = tuple(_one_step(trajectory, group) for group in groups)
    labels = None if record.labels is None else _labels(record.labels, groups)
    coarse = trajectory.model_copy(update={"steps": steps})
    return record.replace(trajectory=coarse, labels=labels, scores=())


def _one_step(trajectory: Trajectory, group: Sequence[int]) -> Step:
    *before, last = (trajectory.steps[i] for i in group)
    if any(step.observation is not None for step in before):
        raise InvalidRecord(
            f"the solution of the problem {trajectory.problem.id!r} has an environment's answers "
            "between its steps, which cannot be joined"
        )
    text = trajectory.separator.join(step.text for step in (*before, last))
    return Step(text=text, observation=last.observation)


def _labels(labels: StepLabels, groups: Sequence[Sequence[int]]) -> StepLabels:
    def value(group: Sequence[int]) -> float | None:
        own = [labels.values[i] for i in group]
        if labels.kind == "human":
            rated = [v for v in own if v is not None]
            return min(rated) if rated else None
        return own[-1]

    def last(values: Sequence[int | None] | None) -> tuple[int | None, ...] | None:
        return None if values is None else tuple(values[group[-1]] for group in groups)

    certainty = labels.certainty
    return StepLabels(
        values=tuple(map(value, groups)),
        kind=labels.kind,
        successes=last(labels.successes),
        trials=last(labels.trials),
        certainty=None if certainty is None else tuple(certainty[g[-1]] for g in groups),
        source=labels.source,
    )


def coarse_to_fine(records: Sequence[Record], sizes: Sequence[int] = (3, 2, 1)) -> list[Record]:
    """Each record at several granularities; a model that learns from all sees both.

    Args:
        records: labelled.
        sizes: steps that are joined; equal results of one record are kept once.
    """
    found: list[Record] = []
    for record in records:
        versions: list[Record] = []
        for size in sizes:
            version = joined(record, size)
            if all(version.trajectory.steps != v.trajectory.steps for v in versions):
                versions.append(version)
        found += versions
    return found
