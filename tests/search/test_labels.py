"""Labels from trees, by hand."""

from __future__ import annotations

import pytest

from prmkit.policies.sampling import Outcome
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.records import Problem
from prmkit.scorers.scripted import ScriptedScorer
from prmkit.search import SearchSettings, algorithm, search
from prmkit.search.labels import labelled_paths
from prmkit.search.tree import Node

PROBLEM = Problem(id="p", prompt="?")


def outcome(node):
    text = node.solution()
    return Outcome(text[-1], None if text.endswith("?") else text.endswith("1"))


def tree():
    """Two steps from the root; rollouts of two lines below each, and one end that was grown."""
    root = Node(PROBLEM)
    good = Node(PROBLEM, root, 0, text="a\n", steps=("a\n",))
    bad = Node(PROBLEM, root, 1, text="b\n", steps=("b\n",))
    for i, end in enumerate("110"):
        Node(PROBLEM, good, i, text=f"x\n= {end}", steps=("x\n", f"= {end}"), finish="eos")
    for i, end in enumerate("00?"):
        Node(PROBLEM, bad, i, text=f"x\n= {end}", steps=("x\n", f"= {end}"), finish="eos")
    Node(PROBLEM, good, 3, text="= 1", steps=("= 1",), finish="eos")
    Node(PROBLEM, bad, 3, text="x\n", steps=("x\n",), finish="length")
    return root


def test_shares_of_right_solutions_below_each_step():
    records = list(labelled_paths(tree(), outcome, source="tree"))
    assert len(records) == 7
    by_text = {record.trajectory.text: record.labels for record in records}
    good = by_text["a\nx\n= 1"]
    assert good.values == (pytest.approx(2 / 3), None, 1.0)
    assert good.trials == (3, None, 1)
    assert by_text["a\nx\n= 0"].values == (pytest.approx(2 / 3), None, 0.0)
    # What cannot be judged is no rollout.
    assert by_text["b\nx\n= 0"].trials == (2, None, 1)
    assert by_text["b\nx\n= ?"].values == (0.0, None, None)
    assert by_text["a\n= 1"].values == (pytest.approx(2 / 3), 1.0)


def test_grown_ends_count_where_they_are_asked_for():
    records = list(labelled_paths(tree(), outcome, source="tree", every=True))
    by_text = {record.trajectory.text: record.labels for record in records}
    assert by_text["a\n= 1"].successes == (3, 1)
    assert by_text["a\n= 1"].trials == (4, 1)


def test_mcts_with_rollouts_is_a_source_of_labels():
    """Labels come close to how likely the policy gets there from each step."""

    def script(prefix, rng):
        first = prefix.steps[0].text if prefix.steps else f"{rng.choice('gb')}\n"
        likely = 0.9 if first == "g\n" else 0.2
        rest = ["x\n", "1" if rng.random() < likely else "0"]
        whole = [first, *rest][len(prefix.steps) :]
        return "".join(whole)

    settings = SearchSettings(split="line", answers="text", answer_ends=False)
    (found,) = search(
        [PROBLEM],
        algorithm("mcts", n=12, width=4, rollouts=40, exploration=5.0),
        ScriptedPolicy(script),
        ScriptedScorer(lambda problem, steps: 0.5),
        settings=settings,
        judge=lambda problem, text: Outcome(text[-1], text.endswith("1")),
    )

    def end(node):
        return Outcome(node.solution()[-1], node.solution().endswith("1"))

    values = {}
    for record in labelled_paths(found.root, end, source="mcts"):
        trials = record.labels.trials[0]
        if trials and trials >= 40:
            values[record.trajectory.steps[0].text] = record.labels.values[0]
    assert values["g\n"] == pytest.approx(0.9, abs=0.15)
    assert values["b\n"] == pytest.approx(0.2, abs=0.15)
