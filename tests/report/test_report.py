"""The report as a stranger's browser would read it: parsed, not searched for strings alone."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from prmkit.evaluation.pools import PoolSettings, measure_pools
from prmkit.records import Problem, Record, Step, StepLabels, StepScores, Trajectory, Unscored
from prmkit.report import Report, write_report
from prmkit.report.page import _verdict, share
from prmkit.report.plots import _spread
from prmkit.testing import UGLY_TEXTS

NASTY = '<script>alert(1)</script><img src=x onerror="alert(1)">&amp; {{ 7*7 }} {% raw %}'


class Page(HTMLParser):
    """Tags with attributes, and the text between them."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)


def record(problem, values, truth, *, correct, answer="1", text="step"):
    n = len(values) if values else 1
    labels = tuple(float(truth is None or i < truth) for i in range(n))
    return Record(
        trajectory=Trajectory(
            problem=Problem(id=problem, prompt=text, answer=answer),
            steps=tuple(Step(text=f"{text} {i}") for i in range(n)),
            answer=answer,
            correct=correct,
        ),
        labels=StepLabels(values=labels, kind="hard"),
        scores=(
            StepScores(values=tuple(values), semantics="correctness", model="m")
            if values
            else Unscored(reason=text, model="m"),
        ),
    )


def pools(text="step"):
    return [
        [
            record(f"p{i}", [0.9, 0.8], None, correct=True, text=text),
            record(f"p{i}", [0.9, 0.1], 1, correct=False, answer="2", text=text),
            record(f"p{i}", None, 0, correct=False, answer=None, text=text),
        ]
        for i in range(3)
    ]


@pytest.fixture
def written(tmp_path):
    groups = pools(NASTY)
    measured = measure_pools(groups, 0, PoolSettings())
    write_report(
        Report(
            title=NASTY, pools=groups, measured=measured, settings={"seed": NASTY}, max_problems=2
        ),
        tmp_path / "r.html",
    )
    return Page(tmp_path / "r.html")


def test_untrusted_text_stays_text(written):
    assert not [tag for tag, _ in written.tags if tag in ("script", "img", "iframe", "link", "a")]
    for _, attributes in written.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        assert not any("//" in (value or "") for value in attributes.values())
    assert "".join(written.text).count(NASTY) > 10


def test_the_policy_allows_the_one_style_sheet_alone(tmp_path):
    write_report(Report(title="t", pools=pools()), tmp_path / "r.html")
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    style = re.search(r"<style>(.*?)</style>", html, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = next(
        attributes["content"]
        for tag, attributes in Page(tmp_path / "r.html").tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.split(";")[:2] == ["default-src 'none'", f" style-src 'sha256-{digest}'"]
    assert "http://" not in html
    assert "https://" not in html


def test_what_is_told(written):
    text = re.sub(r"\s+", " ", " ".join(written.text))
    assert "Shown: 2 of 3 problems" in text
    assert "found: step 2 is the first wrong one" in text
    assert "all steps are right, and none is suspected" in text
    assert "not scored:" in text
    assert "3 solutions could not be scored" in text
    # Best of 3 picks the right one each time; so does the majority one time in two.
    assert text.count("1.000") >= 2
    shades = [a["class"] for tag, a in written.tags if tag == "li" and a.get("class")]
    assert "s9" in shades
    assert "s1 is-found" in shades


@pytest.mark.parametrize("text", UGLY_TEXTS)
def test_any_text_gives_a_page(tmp_path, text):
    write_report(Report(title=text, pools=pools(text)), tmp_path / "r.html")
    assert Page(tmp_path / "r.html").tags


@pytest.mark.parametrize(
    ("truth", "found", "told"),
    [
        (None, None, "none is suspected"),
        (None, 0, "false alarm: step 1"),
        (2, None, "missed: step 3"),
        (2, 2, "found: step 3"),
        (2, 1, "too early: step 2 is suspected, step 3"),
        (2, 3, "too late: step 4 is suspected, step 3"),
    ],
)
def test_verdicts(truth, found, told):
    assert told in _verdict(truth, found, known=True)
    assert _verdict(truth, 1, known=False) == "step 2 is suspected"


def test_scales_of_all_semantics():
    assert [share(v, "correctness") for v in (0.0, 0.3, 1.0)] == [0, 0.3, 1]
    assert [share(v, "advantage") for v in (-1.0, 0.0, 1.0)] == [0, 0.5, 1]
    assert share(0.0, "log_ratio") == 0.5
    assert share(-1e9, "log_ratio") == 0
    assert share(1e9, "log_ratio") == 1


def test_names_of_lines_do_not_cover_each_other():
    placed = _spread([100.0, 101.0, 99.0, 300.0], 15)
    gaps = [b - a for a, b in zip(sorted(placed), sorted(placed)[1:], strict=False)]
    assert min(gaps) > 14.9
    assert sorted(range(4), key=placed.__getitem__) == [2, 0, 1, 3]
