"""The pages of searches: everything is there, and untrusted text stays text."""

from __future__ import annotations

from html.parser import HTMLParser

from prmkit.evaluation.searches import compare_searches
from prmkit.policies.sampling import Outcome
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.records import Problem
from prmkit.report.search import write_search
from prmkit.report.searches import write_searches
from prmkit.scorers.scripted import ScriptedScorer
from prmkit.search import SearchSettings, algorithm, search

EVIL = '<script>alert(1)</script><img src=x onerror="x()"> </details></ul> {{ 7 * 7 }}'
PROBLEMS = [Problem(id=f"{EVIL}{i}", prompt=EVIL, answer="1") for i in range(2)]


def script(prefix, rng):
    return f"{EVIL} {rng.randrange(5)}\n" * (2 - len(prefix.steps)) + f"= {rng.randrange(2)}"


def judge(problem, text):
    answer = text.rpartition("= ")[2]
    return Outcome(answer + EVIL, answer == "1")


def run(folder, name, **options):
    settings = SearchSettings(split="line", answers="text")
    found = search(
        PROBLEMS,
        algorithm(name, **options),
        ScriptedPolicy(script),
        ScriptedScorer(lambda problem, steps: 0.5 + 0.1 * len(steps)),
        settings=settings,
        judge=judge,
        traces=folder / "traces",
    )
    return list(found)


class Seen(HTMLParser):
    """Which elements a page has, and whether all are closed."""

    def __init__(self):
        super().__init__()
        self.tags, self.open, self.texts = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in ("meta", "input", "br", "i", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            while self.open.pop() != tag:
                pass

    def handle_data(self, data):
        self.texts.append(data)


def read(path):
    seen = Seen()
    seen.feed(path.read_text(encoding="utf-8"))
    return seen


def test_the_page_of_a_search(tmp_path):
    found = run(tmp_path, "beam", n=4, width=2)
    write_search(tmp_path / "page.html", tmp_path, judge, title=EVIL)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    seen = read(tmp_path / "page.html")
    assert "script" not in seen.tags
    assert "img" not in seen.tags
    assert "{{ 7 * 7 }}" in page
    assert seen.tags.count("section") == 2
    shown = seen.tags.count("summary") + page.count('class="node leaf')
    assert shown == sum(len(list(one.root.walk())) - 1 for one in found)
    # A way to add scores up is switched without a script.
    assert page.count('type="radio"') == 4
    assert ":has(#way-min:checked) .v-min" in page
    chosen = sum(len(one.node.path) for one in found)
    assert page.count("is-chosen") - page.count(".node.is-chosen") == chosen
    assert "Had it been stopped earlier" in page


def test_a_page_without_scores(tmp_path):
    run(tmp_path, "majority", n=3)
    write_search(tmp_path / "page.html", tmp_path, judge, title="votes")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "0.5" not in page[page.index("<h2>Trees") :]
    assert page.count('class="chip none"') > 0


def test_the_page_of_several_searches(tmp_path):
    runs = {}
    for name in ("best-of-n", "majority"):
        run(tmp_path / name, name, n=3)
        runs[f"{name} {EVIL}"] = tmp_path / name
    compared = compare_searches(runs, judge)
    write_searches(tmp_path / "page.html", compared)
    seen = read(tmp_path / "page.html")
    assert "script" not in seen.tags
    assert "img" not in seen.tags
    assert seen.tags.count("svg") >= 1
    text = "".join(seen.texts)
    assert "best_of_n(n=3)" in text
    assert f"minus best-of-n {EVIL}" in text
