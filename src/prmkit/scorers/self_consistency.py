"""Scores without a reward model and without labels: do completions agree with the majority?

The score of a step is the share of completions after it that reach the answer which most
completions of the problem reach. It is what Monte Carlo labels are, with the majority's answer in
the place of the reference answer (self-consistency, arXiv:2203.11171).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from prmkit.answers import canonical, extract_answer
from prmkit.errors import InputTooLong
from prmkit.ledger import seed_for
from prmkit.policies.base import Policy, SamplingSettings
from prmkit.records import Problem, Semantics, StepScores, Trajectory, Unscored
from prmkit.scorers.base import beyond_text

FindAnswer = Callable[[Problem, str], str | None]
"""From a problem and a whole solution text to the final answer that it states, or None."""


def stated_answer(problem: Problem, text: str) -> str | None:
    """The final answer of a text in its canonical form."""
    del problem
    answer = extract_answer(text, last_number=True)
    return None if answer is None else canonical(answer)


class SelfConsistencyScorer:
    """Scores steps by the agreement of completions.

    Args:
        policy: who completes.
        settings: how completions are drawn.
        n_votes: completions of the problem alone, whose most frequent answer is the majority's.
        n_rollouts: completions after each step.
        find_answer: text to answer; equal answers must be equal texts.
        seed: of all that is drawn; votes and rollouts depend on it, the problem and the prefix.
    """

    semantics: Semantics = "value"

    def __init__(
        self,
        policy: Policy,
        settings: SamplingSettings,
        *,
        n_votes: int = 16,
        n_rollouts: int = 8,
        find_answer: FindAnswer = stated_answer,
        seed: int = 0,
    ):
        if n_votes < 1 or n_rollouts < 1:
            raise ValueError(
                f"n_votes is {n_votes!r} and n_rollouts {n_rollouts!r}; at least 1 of each"
            )
        self._policy, self._settings, self._seed = policy, settings, seed
        self._n_votes, self._n_rollouts = n_votes, n_rollouts
        self._find_answer = find_answer
        self.name = f"self-consistency of {policy.name}"

    def score(self, trajectories: Sequence[Trajectory]) -> list[StepScores | Unscored]:
        """See `prmkit.scorers.base.Scorer.score`.

        `Unscored` where no vote states an answer, or where two answers have the most votes.
        """
        without = [beyond_text(t) for t in trajectories]
        readable = [t for t, why in zip(trajectories, without, strict=True) if why is None]
        found = iter(self._majorities(readable))
        majorities = [
            next(found) if why is None else Unscored(reason=why, model=self.name) for why in without
        ]
        prefixes: list[Trajectory] = []
        for trajectory, majority in zip(trajectories, majorities, strict=True):
            if isinstance(majority, str):
                prefixes += [trajectory.prefix(n + 1) for n in range(len(trajectory.steps))]
        shares = iter(self._answers(prefixes, self._n_rollouts))
        results: list[StepScores | Unscored] = []
        for trajectory, majority in zip(trajectories, majorities, strict=True):
            if isinstance(majority, Unscored):
                results.append(majority)
                continue
            drawn = [next(shares) for _ in trajectory.steps]
            too_long = next((one for one in drawn if isinstance(one, str)), None)
            if too_long is not None:
                results.append(Unscored(reason=too_long, model=self.name))
                continue
            values = [
                sum(answer == majority for answer in of_step) / self._n_rollouts
                for of_step in drawn
            ]
            results.append(
                StepScores(values=tuple(values), semantics=self.semantics, model=self.name)
            )
        return results

    def _majorities(self, trajectories: Sequence[Trajectory]) -> list[str | Unscored]:
        """The majority's answer to each trajectory's problem; each problem is voted on once."""
        problems = {t.prefix(0).key: t.prefix(0) for t in trajectories}
        votes = dict(
            zip(problems, self._answers(list(problems.values()), self._n_votes), strict=True)
        )
        return [self._majority(votes[t.prefix(0).key]) for t in trajectories]

    def _majority(self, answers: Sequence[str | None] | str) -> str | Unscored:
        if isinstance(answers, str):
            return Unscored(reason=answers, model=self.name)
        ranked = Counter(a for a in answers if a is not None).most_common(2)
        if not ranked:
            return Unscored(reason=f"none of {len(answers)} votes has an answer", model=self.name)
        if len(ranked) == 2 and ranked[0][1] == ranked[1][1]:
            return Unscored(
                reason=f"{ranked[0][0]!r} and {ranked[1][0]!r} have {ranked[0][1]} votes each",
                model=self.name,
            )
        return ranked[0][0]

    def _answers(self, prefixes: Sequence[Trajectory], n: int) -> list[list[str | None] | str]:
        """The answers that `n` completions of each prefix reach; or why it was not completed."""
        if not prefixes:
            return []
        seeds = [seed_for(self._seed, prefix.key) for prefix in prefixes]
        try:
            drawn = self._policy.complete(prefixes, n, self._settings, seeds)
        except InputTooLong as error:
            if len(prefixes) == 1:
                return [str(error)]
            # The long ones drop out alone.
            return [one for prefix in prefixes for one in self._answers([prefix], n)]
        found: list[list[str | None] | str] = []
        for prefix, completions in zip(prefixes, drawn, strict=True):
            errors = [c.error or "no reason given" for c in completions if c.finish == "error"]
            if errors:
                # No vote at all is not a vote for what the prefix happens to say last.
                found.append(f"{len(errors)} of {n} completions were not drawn: {errors[0]}")
                continue
            start = prefix.text + (prefix.separator if prefix.steps else "")
            found.append([self._find_answer(prefix.problem, start + c.text) for c in completions])
        return found
