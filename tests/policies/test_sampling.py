"""Whole solutions: what could not be drawn is no wrong answer, and is drawn another time."""

from __future__ import annotations

import logging

from prmkit.ledger import Ledger
from prmkit.policies.base import SamplingSettings, failed
from prmkit.policies.sampling import judge_by_answer, sample
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.records import Problem
from prmkit.splitting import splitter

PROBLEMS = [Problem(id=str(i), prompt=f"{i} + 1?", answer=str(i + 1)) for i in range(4)]


class Flaky(ScriptedPolicy):
    """Cannot draw the second completion of some problems."""

    def __init__(self, bad):
        super().__init__(lambda prefix, rng: f"The answer is {int(prefix.problem.id) + 1}.")
        self.bad = bad

    def complete(self, prefixes, n, settings, seeds, first=None):
        drawn = super().complete(prefixes, n, settings, seeds, first)
        for prefix, completions in zip(prefixes, drawn, strict=True):
            if prefix.problem.id in self.bad:
                completions[1] = failed("the server fell over")
        return drawn


def run(policy, ledger=None, **more):
    return list(
        sample(
            policy,
            PROBLEMS,
            3,
            splitter("line"),
            judge_by_answer,
            settings=SamplingSettings(),
            ledger=ledger,
            **more,
        )
    )


def test_what_could_not_be_drawn_is_told_and_neither_right_nor_wrong(caplog):
    told = []
    groups = run(Flaky({"2"}), on_error=lambda problem, reason: told.append((problem.id, reason)))
    assert told == [("2", "the server fell over")]
    lost = groups[2][1]
    assert (lost.finish, lost.steps, lost.answer, lost.correct) == ("error", (), None, None)
    assert lost.generator == "scripted"
    others = [t for group in groups for t in group if t is not lost]
    assert all(t.correct and t.finish == "eos" for t in others)
    with caplog.at_level(logging.WARNING, "prmkit"):
        run(Flaky({"2"}))
    assert "1 solutions of '2' could not be drawn: the server fell over" in caplog.text


def test_a_problem_with_a_lost_solution_is_drawn_again(tmp_path):
    with Ledger(tmp_path / "ledger.sqlite", {}) as ledger:
        first = Flaky({"1", "3"})
        run(first, ledger)
        assert len(ledger) == 2
        second = Flaky(set())
        groups = run(second, ledger)
        assert [prefix.problem.id for prefix, _ in second.requests] == ["1", "3"]
        assert all(t.correct for group in groups for t in group)
        third = Flaky(set())
        assert run(third, ledger) == groups
        assert third.requests == []
