"""What a policy wrote to a problem, with its tokens and the scores of its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from prmkit.chat import Tokenizer
from prmkit.errors import InvalidRecord, PolicyError
from prmkit.ledger import seed_for
from prmkit.policies.base import FINISH_OF, Drawn, SamplingSettings, TokenPolicy
from prmkit.policies.sampling import Judge
from prmkit.records import Problem, Step, StepScores, Trajectory, Unscored
from prmkit.rl.placing import places
from prmkit.scorers.base import Scorer


class Turn(NamedTuple):
    """A later turn of an episode: what the policy read before it, and how much it drew.

    Attributes:
        kept: with how many tokens of the turn before, those that it read and those that it drew,
            this one's context begins; all of them, unless a chat template shows a message
            otherwise once it is past.
        more: the rest of its context, such as what the environment answered.
        n: tokens that were drawn.
    """

    kept: int
    more: tuple[int, ...]
    n: int


class Rollout(NamedTuple):
    """A response that a policy drew, as it is learnt from; or an episode, whose steps are turns.

    Attributes:
        trajectory: its steps, why it ended, and whether it is right (None: not known).
        prompt: token ids of the question.
        ids: [T] token ids of the response, the end token included where it was drawn; of an
            episode those of all turns, and nothing that the environment said.
        ends: [S] place in `ids` of the last token of each step. Ends do not fall; a step without
            tokens of its own has the end of the step before it, an empty first step has end 0.
        scores: of its steps, by the PRM; None where none was asked.
        turns: of an episode the turns after the first.
        error: why an episode could not be played to its end: it is no attempt.
    """

    trajectory: Trajectory
    prompt: tuple[int, ...]
    ids: tuple[int, ...]
    ends: tuple[int, ...]
    scores: StepScores | Unscored | None
    turns: tuple[Turn, ...] = ()
    error: str | None = None


class Drawing(NamedTuple):
    """How responses are drawn and looked at.

    Attributes:
        policy: who writes; it must tell its tokens.
        tokenizer: of it.
        end: its end token, where a response does not tell with which it ended.
        split: text to the texts of its steps.
        judge: the outcome of a response.
    """

    policy: TokenPolicy
    tokenizer: Tokenizer
    end: int
    split: Callable[[str], Sequence[str]]
    judge: Judge


def roll_out(
    drawing: Drawing,
    problems: Sequence[Problem],
    n: int,
    settings: SamplingSettings,
    seed: int,
    scorer: Scorer | None = None,
    first: int = 0,
) -> list[Rollout]:
    """Draw `n` responses to each problem, and score their steps.

    A response whose tokens do not spell its text (half a character, a special token in it) has
    tokens that would teach another text; it comes back without tokens and steps, so that it
    teaches nothing, and as an error in its trajectory.

    Args:
        drawing: who draws.
        problems: in any order.
        n: responses to each.
        settings: how to draw.
        seed: each problem draws from a seed of its own, made from this one and its place.
        scorer: scores steps, all of them in one batch; None for no scores.
        first: the place of the first of these problems, where they are a part of more.

    Returns:
        The responses, those to one problem together.

    Raises:
        PolicyError: if the policy cannot tell its tokens, or a response could not be drawn.
    """
    prompts, drawn = _drawn(drawing, problems, n, settings, seed, first)
    made = [
        _rollout(drawing, problem, tuple(prompt), one)
        for problem, prompt, of_one in zip(problems, prompts, drawn, strict=True)
        for one in of_one
    ]
    return made if scorer is None else scored(made, scorer)


def scored(rollouts: Sequence[Rollout], scorer: Scorer) -> list[Rollout]:
    """With the scores of their steps, all in one batch."""
    whole = [one.trajectory for one in rollouts if one.trajectory.steps and one.error is None]
    scores = iter(scorer.score(whole) if whole else [])
    found = []
    for one in rollouts:
        of_it: StepScores | Unscored
        if one.error is not None:
            of_it = Unscored(reason="it could not be played")
        elif one.trajectory.steps:
            of_it = next(scores)
        else:
            of_it = Unscored(reason="a response without a step")
        found.append(one._replace(scores=of_it))
    return found


def are_right(
    drawing: Drawing,
    problems: Sequence[Problem],
    n: int,
    settings: SamplingSettings,
    seed: int,
    first: int = 0,
) -> list[bool]:
    """Whether each of `n` responses to each problem is right, drawn as by `roll_out`.

    What counts is the text: one that teaches nothing may be right. Where it is not known whether
    a response is right, it is not.

    Raises:
        PolicyError: if a response could not be drawn.
    """
    _, drawn = _drawn(drawing, problems, n, settings, seed, first)
    return [
        drawing.judge(problem, one.completion.text).correct is True
        for problem, of_one in zip(problems, drawn, strict=True)
        for one in of_one
    ]


def _drawn(
    drawing: Drawing,
    problems: Sequence[Problem],
    n: int,
    settings: SamplingSettings,
    seed: int,
    first: int,
) -> tuple[list[list[int]], list[list[Drawn]]]:
    """The prompts, and `n` responses to each."""
    prompts = [drawing.policy.question_ids(problem) for problem in problems]
    seeds = [seed_for(seed, str(i), p.id) for i, p in enumerate(problems, first)]
    drawn = drawing.policy.continue_ids(prompts, [n] * len(problems), settings, seeds)
    for problem, of_one in zip(problems, drawn, strict=True):
        for one in of_one:
            if one.completion.finish == "error":
                raise PolicyError(
                    f"{drawing.policy.name} could not answer problem {problem.id!r}: "
                    f"{one.completion.error or 'no reason'}"
                )
    return prompts, drawn


def _rollout(
    drawing: Drawing,
    problem: Problem,
    prompt: tuple[int, ...],
    one: Drawn,
) -> Rollout:
    completion, ids = one.completion, one.ids
    name = drawing.policy.name
    if ids is None:
        broken = Trajectory(problem=problem, finish="error", generator=name)
        return Rollout(broken, prompt, (), (), None)
    end = drawing.end if one.end is None else one.end
    whole = (*ids, end) if completion.finish == "eos" else ids
    outcome = drawing.judge(problem, completion.text)
    texts = [text for text in drawing.split(completion.text) if text]
    trajectory = Trajectory(
        problem=problem,
        steps=tuple(Step(text=text) for text in texts),
        finish=FINISH_OF[completion.finish],
        answer=outcome.answer,
        correct=outcome.correct,
        generator=name,
    )
    try:
        ends = places(drawing.tokenizer, whole, texts)
    except InvalidRecord:
        # A special token among them, which the text does not show.
        broken = Trajectory(problem=problem, finish="error", generator=name)
        return Rollout(broken, prompt, (), (), None)
    return Rollout(trajectory, prompt, whole, ends, None)
