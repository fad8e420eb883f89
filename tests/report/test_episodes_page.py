"""The page of episodes: turns and falls, untrusted text, and a size that is limited."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from prmkit.evaluation.episodes import Played, measure_episodes
from prmkit.records import Problem, Record, Step, StepLabels, StepScores, Trajectory, Unscored
from prmkit.report.episodes import write_episodes

EVIL = '<script>alert(1)</script><img src=x onerror="x()"> </details></ol> {{ 7 * 7 }}'


class Seen(HTMLParser):
    """Which elements a page has, whether all are closed, and the texts of the marked turns."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.open, self.falls, self.unfolded = [], [], [], 0
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.unfolded += tag == "details" and ("open", None) in attrs
        if tag not in ("meta", "br"):
            self.open.append((tag, dict(attrs).get("class")))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if ("li", "is-found") in self.open and ("code", "action") in self.open:
            self.falls.append(data)


def episode(values, correct, seed=0, text="Thought: {i}.\nAction: go {i}", said="seen", **more):
    problem = Problem(id=f"world/a/{seed}", prompt="Do it.", meta={"task": "a", "seed": seed})
    steps = tuple(Step(text=text.format(i=i), observation=said) for i in range(len(values)))
    trajectory = Trajectory(problem=problem, steps=steps, finish="eos", correct=correct)
    scores = (StepScores(values=tuple(values), semantics="value", model="m"),)
    return Record(trajectory=trajectory, scores=scores, **more)


def page(tmp_path, records, **more):
    write_episodes(tmp_path / "a.html", iter(records), title="A", **more)
    return (tmp_path / "a.html").read_text()


def test_the_largest_fall_is_marked_and_the_best_is_picked(tmp_path):
    labels = StepLabels(values=(1.0, None, 0.25), kind="soft")
    found = page(
        tmp_path,
        [
            episode([0.9, 0.8, 0.2], False, labels=labels),
            episode([0.1, 0.5, 0.7], True),
            episode([0.5], True, seed=1),
        ],
    )
    seen = Seen(found)
    assert seen.falls == ["go 2"]
    assert "largest fall −0.60 at turn 3" in found
    assert found.count('badge pick">best score') == 1
    assert found.index('badge pick">best score') < found.index("−0.60")
    assert "1 of 2 solved" in found
    assert "label 0.25" in found
    assert "label None" not in found
    # The task of which some succeeded, its best and its worst.
    assert seen.unfolded == 3


def test_scores_that_are_changes_are_taken_as_such(tmp_path):
    record = episode([0, 0, 0], False)
    scores = StepScores(values=(0.2, -0.4, -0.1), semantics="advantage", model="m")
    found = page(tmp_path, [record.replace(scores=(scores,))])
    assert Seen(found).falls == ["go 1"]
    assert "−0.40 at turn 2" in found
    assert "The bar is the score after" in found


def test_untrusted_text_stays_text(tmp_path):
    record = episode([0.5, 0.4], True, text=f"{EVIL}\nAction: {EVIL}", said=EVIL)
    problem = record.trajectory.problem.model_copy(update={"id": EVIL, "prompt": EVIL})
    trajectory = record.trajectory.model_copy(update={"problem": problem, "answer": EVIL})
    record = record.replace(trajectory=trajectory, meta={"error": EVIL})
    other = record.replace(scores=(Unscored(reason=EVIL),))
    found = page(tmp_path, [record, other], settings={"a": EVIL})
    seen = Seen(found)
    assert {"script", "img"}.isdisjoint(seen.tags)
    assert not seen.open
    assert "{{ 7 * 7 }}" in found
    assert found.count("&lt;script&gt;") >= 8
    assert "style=" not in found


def test_a_long_run_has_a_page_of_limited_size(tmp_path):
    def many():
        for seed in range(300):
            for k in range(8):
                record = episode([0.5] * 60, k % 2 == 0, seed=seed, said="x" * 4_000)
                trajectory = record.trajectory.model_copy(update={"answer": "y" * 50_000})
                yield record.replace(trajectory=trajectory)

    found = page(tmp_path, many())
    assert len(found) < 3_000_000
    assert "12 of 300 tasks" in found
    assert "20 turns are not shown" in found
    assert "and 2 more episodes" in found
    assert "… and 2,500 more characters" in found
    assert "the page is full" in found


def test_tasks_with_both_outcomes_come_before_others(tmp_path):
    records = [episode([0.5], True, seed=seed) for seed in range(20)]
    records += [episode([0.5], correct, seed=77) for correct in (True, False)]
    found = page(tmp_path, records)
    assert "world/a/77" in found
    assert "world/a/10" in found
    assert "world/a/11" not in found


def test_a_fall_among_turns_left_out_is_shown(tmp_path):
    values = [0.9] * 30 + [0.1] * 30
    assert Seen(page(tmp_path, [episode(values, False)])).falls == ["go 30"]


def test_figures_and_curve(tmp_path):
    groups = [[Played(k == 2, 5, k / 3) for k in range(4)], [Played(False, 5, 0.0)] * 4]
    metrics = {"tasks": 2, "episodes": 8, **measure_episodes(groups).metrics()}
    found = page(tmp_path, [episode([0.5], True)], metrics=metrics)
    assert "<svg" in found
    assert re.search(r"<b>0\.125</b>", found)
    rows = re.findall(r'<td class="num">([^<]*)', found)
    assert rows[:4] == ["1", "5.0", "0.125", "0.125"]
    metrics = {"tasks": 2, "episodes": 8, "at": [], "not_played": 0}
    found = page(tmp_path, [episode([], None).replace(scores=())], metrics=metrics)
    assert "<svg" not in found
    assert "No turn was scored." in found
    assert "not played" not in found


def test_what_a_search_chose_is_shown(tmp_path):
    """It is marked instead of the best, and is not among those that are left out."""
    others = [episode((i / 20,), False) for i in range(15)]
    assert page(tmp_path, others).count(">best score<") == 1
    told = page(tmp_path, [*others, episode((0.31,), True, meta={"search": {"chosen": True}})])
    assert ">best score<" not in told
    assert told.count(">chosen<") == 1
    assert "Episode 16 " in told
