"""Prompts and completions, as trainers hold them, to step scores and one number each.

Text -> steps (`prmkit.splitting`) -> `Trajectory` -> scorer -> step scores -> one number
(`prmkit.aggregate`). What cannot be scored says why; each bridge makes of that what its trainer
understands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple, get_args

from pydantic import ValidationError

from prmkit.aggregate import Aggregation, aggregate_scores
from prmkit.errors import MissingTrainer, ScoringError, UnknownName
from prmkit.records import Message, Problem, Step, StepScores, Trajectory, Unscored
from prmkit.scorers.base import Scorer
from prmkit.splitting import splitter

Talk = str | Sequence[Mapping[str, Any]]
"""A text, or a conversation of messages with ``role`` and ``content``."""


class Scored(NamedTuple):
    """What is known of a completion.

    Attributes:
        steps: the texts of its S steps; joined they are what the policy wrote.
        scores: S of them, or why there are none.
        reward: the scores as one number; None where there are none.
    """

    steps: tuple[str, ...]
    scores: StepScores | Unscored
    reward: float | None

    @property
    def values(self) -> tuple[float, ...]:
        """The scores, none where it was not scored."""
        return self.scores.values if isinstance(self.scores, StepScores) else ()

    def reward_or(self, unscored: float | None) -> float:
        """Its reward, for trainers that know no "not scored".

        Args:
            unscored: what stands in the place of a reward where there is none.

        Raises:
            ScoringError: if there is none, and nothing to stand in its place.
        """
        if self.reward is not None:
            return self.reward
        if unscored is None:
            reason = self.scores.reason if isinstance(self.scores, Unscored) else "no reason"
            raise ScoringError(
                f"a completion was not scored: {reason}. This trainer needs a number for each; "
                "name the one to use with unscored=…"
            )
        return unscored


@dataclass(frozen=True, kw_only=True)
class StepRewards:
    r"""How completions are scored.

    Attributes:
        scorer: scores their steps.
        how: step scores to one number, see `prmkit.aggregate`.
        split: completions to steps, a name of `prmkit.splitting.splitter`.
        before: what stands before the question in a prompt that is one text, such as the
            template's ``"<|im_start|>user\n"``; the question begins after its first place.
        after: what stands after it; the question ends before its last place.
    """

    scorer: Scorer
    how: Aggregation
    split: str = "blank_line"
    before: str = ""
    after: str = ""

    def __post_init__(self) -> None:
        if self.how not in get_args(Aggregation):
            raise UnknownName("aggregation", self.how, get_args(Aggregation))
        splitter(self.split)

    def cut(self, text: str) -> list[str]:
        """A text of the policy's as steps."""
        return splitter(self.split)(text)

    def score(self, prompts: Sequence[Talk], completions: Sequence[Talk]) -> list[Scored]:
        """Score completions, all in one batch.

        Args:
            prompts: [N] what was asked. Of a conversation each message is kept with its role.
            completions: [N] what was answered. Messages of the assistant are the policy's; those
                of others, such as tools, are observations that follow the step before them.

        Returns:
            [N]; unscored where a text has no step, or holds what is no text.

        Raises:
            ScoringError: if there are not as many of both, the scorer gives another number of
                results, or a prompt lacks what is said to stand around its question.
        """
        if len(prompts) != len(completions):
            raise ScoringError(f"{len(prompts)} prompts for {len(completions)} completions")
        made = [self._trajectory(p, c) for p, c in zip(prompts, completions, strict=True)]
        wanted = [one for one in made if isinstance(one, Trajectory)]
        found = self.scorer.score(wanted) if wanted else []
        if len(found) != len(wanted):
            raise ScoringError(
                f"{self.scorer.name} gave {len(found)} results for {len(wanted)} completions"
            )
        results = iter(found)
        return [
            self._scored(one, next(results))
            if isinstance(one, Trajectory)
            else Scored((), one, None)
            for one in made
        ]

    def _scored(self, trajectory: Trajectory, scores: StepScores | Unscored) -> Scored:
        steps = tuple(step.text for step in trajectory.steps)
        if isinstance(scores, Unscored):
            return Scored(steps, scores, None)
        if len(scores.values) != len(steps):
            raise ScoringError(
                f"{self.scorer.name} gave {len(scores.values)} scores for {len(steps)} steps"
            )
        return Scored(steps, scores, aggregate_scores(scores, self.how))

    def _trajectory(self, prompt: Talk, completion: Talk) -> Trajectory | Unscored:
        try:
            steps = self._steps(completion)
            if not any(step.text.strip() for step in steps):
                return Unscored(reason="the completion has no step")
            return Trajectory(problem=self._problem(prompt), steps=tuple(steps))
        except _NoText as error:
            return Unscored(reason=str(error))
        except ValidationError as error:
            return Unscored(reason=error.errors()[0]["msg"])

    def _problem(self, prompt: Talk) -> Problem:
        if not isinstance(prompt, str):
            messages = tuple(Message(role=m["role"], content=message_text(m)) for m in prompt)
            return Problem(id="prompt", messages=messages)
        begin = prompt.find(self.before)
        end = prompt.rfind(self.after)
        if begin < 0 or end < begin + len(self.before):
            raise ScoringError(
                f"the prompt {prompt[:80]!r} does not hold its question between {self.before!r} "
                f"and {self.after!r}; give what its template writes around it"
            )
        return Problem(id="prompt", prompt=prompt[begin + len(self.before) : end])

    def _steps(self, completion: Talk) -> list[Step]:
        if isinstance(completion, str):
            return [Step(text=text) for text in self.cut(completion)]
        steps: list[Step] = []
        for message in completion:
            text = message_text(message)
            if message["role"] == "assistant":
                steps += [Step(text=one) for one in self.cut(text + _calls(message))]
            elif steps:
                seen = steps[-1].observation
                steps[-1] = Step(
                    text=steps[-1].text, observation=text if seen is None else f"{seen}\n{text}"
                )
            else:
                raise _NoText("the completion begins with a message that is not the assistant's")
        return steps


class _NoText(Exception):
    """A message holds what a scorer of texts cannot read."""


def message_text(message: Mapping[str, Any]) -> str:
    """The text of a message, whose content is a text, nothing, or a list of parts."""
    content = message.get("content")
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    texts = []
    for part in content:
        if part.get("type") != "text":
            raise _NoText(f"a message holds a part of type {part.get('type')!r}, which is no text")
        texts.append(str(part["text"]))
    return "".join(texts)


def _calls(message: Mapping[str, Any]) -> str:
    """The calls of tools in a message, as JSON: they are what the policy wrote, too."""
    calls = message.get("tool_calls")
    return json.dumps(calls, ensure_ascii=False) if calls else ""


def of_trainer(module: str, package: str) -> Any:
    """A module of a trainer.

    Raises:
        MissingTrainer: if the trainer is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != module.partition(".")[0]:
            raise
        raise MissingTrainer(package, "", f"prmkit.rl.bridges with {module}") from None
