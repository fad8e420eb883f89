"""The page of a policy's training: curves, alarms, and untrusted text that stays text."""

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser

import pytest

from prmkit.errors import FormatError, NothingToMeasure, RunFolderError
from prmkit.report.over_time import POINTS, Series, Size, over_time, short
from prmkit.report.rl import wilson, write_rl

EVIL = '<script>alert(1)</script><img src=x onerror="x()"> </table></svg> {{ 7 * 7 }}'


def row(step, **more):
    figures = {
        "problems": 8,
        "samples": 64,
        "sampled_tokens": 6400 * (step + 1),
        "seconds": 2.5 * (step + 1),
        "reward": 0.1 * math.sin(step),
        "accuracy": 0.5 + 0.1 * math.sin(step),
        "prm": 0.6 + 0.1 * math.cos(step),
        "prm_auc": 0.7,
        "last_lowest": 0.3,
        "steps": 6.0 + step % 3,
        "length": 120.0 + step % 7,
        "repetition": 0.01,
        "truncated": 0.02,
        "kl": 0.001 * step,
        "entropy": 0.6,
        "clipped": 0.1,
        "grad_norm": 1.0,
        "loss": -0.1,
        "kept": 0.8,
        "prm_loss": 0.4,
        "prm_accuracy": 0.8,
        "alarms": [],
    }
    return {"step": step, **figures, **more}


def page(folder, rows, config=None, title="run"):
    lines = "".join(json.dumps(r) + "\n" for r in rows)
    (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_rl(folder / "page.html", folder, title=title)
    return (folder / "page.html").read_text(encoding="utf-8")


class Seen(HTMLParser):
    """Which elements a page has, with their attributes, and its text."""

    def __init__(self):
        super().__init__()
        self.tags, self.texts, self.found = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


def seen(html):
    parser = Seen()
    parser.feed(html)
    return parser


def tiles(html):
    found = re.findall(
        r'class="tile"><span>(.*?)</span><b>(.*?)</b><p>(.*?)</p>', html, flags=re.DOTALL
    )
    return {name: (value, note) for name, value, note in found}


def test_the_headline(tmp_path):
    rows = [row(i) for i in range(30)]
    rows[0] |= {"eval_accuracy": 0.4, "eval_problems": 100}
    rows[20] |= {"eval_accuracy": 0.5, "eval_problems": 100}
    shown = tiles(page(tmp_path, rows))
    value, note = shown["accuracy, evaluated"]
    assert value == "0.400 → 0.500"
    # Wilson's interval of 40 and of 50 in 100, as tables have it.
    assert note == "95 % interval 0.309 to 0.498 → 0.404 to 0.596, 100 problems"
    assert shown["sampled tokens"][0] == "192k"
    assert shown["time"][0] == "1 min 15 s"
    assert shown["alarms"] == ("0", "nothing was unusual")
    assert "accuracy" not in shown


def test_wilson():
    assert wilson(0.0, 10) == pytest.approx((0, 0.2775), abs=1e-3)
    assert wilson(1.0, 10) == pytest.approx((0.7225, 1), abs=1e-3)


def test_without_evaluations_the_accuracy_of_samples_is_shown(tmp_path):
    shown = tiles(page(tmp_path, [row(0, accuracy=0.25), row(1, accuracy=0.75)]))
    assert shown["accuracy"][0] == "0.250 → 0.750"


def test_every_plot_is_there_for_steps_and_for_tokens(tmp_path):
    html = page(tmp_path, [row(i) for i in range(30)])
    headings = re.findall("<h3>(.*?)</h3>", html)
    assert "Accuracy and PRM score" in headings
    assert "PRM score" not in headings
    assert {"Reward", "Steps of a response", "KL from the reference", "Entropy"} <= set(headings)
    assert html.count('class="by by-step"') == html.count('class="by by-tokens"') == len(headings)
    assert html.count('type="radio"') == 2
    assert ":has(#by-tokens:checked) .by-tokens" in html
    assert re.findall('id="(by-[a-z]+)"', html) == ["by-step", "by-tokens"]


def test_tokens_that_fall_are_no_axis(tmp_path):
    html = page(tmp_path, [row(0, sampled_tokens=9), row(1, sampled_tokens=8)])
    assert re.findall('id="(by-[a-z]+)"', html) == ["by-step"]


def test_nothing_is_fetched_and_no_script_runs(tmp_path):
    found = seen(page(tmp_path, [row(i) for i in range(30)]))
    assert not {"script", "img", "link", "iframe", "object"} & set(found.tags)
    for _, attributes in found.found:
        assert not {"src", "href", "style"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)


def test_alarms_are_marks_and_a_list(tmp_path):
    alarm = {"step": 7, "monitor": "divergence", "value": 0.4, "baseline": 0.5, "message": "mix"}
    rows = [row(i) for i in range(30)]
    rows[7]["alarms"] = [alarm, {**alarm, "monitor": "steps", "message": "min-form"}]
    html = page(tmp_path, rows)
    assert tiles(html)["alarms"] == ("2", "the first at step 7")
    # Each on one plot, for both axes.
    assert html.count('<line class="alarm"') == 4
    marks = re.findall(r'<g><title>(.*?)</title><line class="alarm" x1="([\d.]+)"', html)
    assert [told for told, _ in marks] == ["divergence, step 7: mix"] * 2 + [
        "steps, step 7: min-form"
    ] * 2
    # Of 29 steps the seventh, between the margins of a picture 1000 wide.
    assert float(marks[0][1]) == pytest.approx(50 + (1000 - 64) * 7 / 29, abs=0.06)
    first, second = re.findall(r"<tr><td class=\"num short\">7</td>.*?</tr>", html)
    assert "divergence" in first
    assert "mix" in first
    assert ">0.5<" in first
    assert "min-form" in second


def test_untrusted_text_stays_text(tmp_path):
    rows = [row(i) for i in range(5)]
    rows[1]["alarms"] = [
        {"monitor": "divergence", "message": EVIL, "value": EVIL, "baseline": None},
        {"monitor": EVIL, "message": [EVIL]},
        EVIL,
        7,
        None,
        {"monitor": "steps", "message": "\ud800"},
    ]
    rows[2] |= {"alarms": EVIL, EVIL: 3, "kl": EVIL, "prm": [EVIL], "entropy": {EVIL: 1}}
    html = page(tmp_path, rows, {EVIL: EVIL, "deep": {EVIL: [EVIL, {"a": EVIL}]}}, title=EVIL)
    found = seen(html)
    assert not {"script", "img"} & set(found.tags)
    assert "{{ 7 * 7 }}" in html
    text = "".join(found.texts)
    assert text.count(EVIL) >= 6
    assert found.tags.count("table") == 2
    # They are balanced: nothing closed what is ours.
    assert html.count("<table") == html.count("</table>")
    assert html.count("<svg") == html.count("</svg>")


def test_missing_figures_have_no_plot(tmp_path):
    html = page(tmp_path, [{"step": 0, "reward": 1.0}, {"step": 3}, {"step": 9, "reward": 2.0}])
    assert re.findall("<h3>(.*?)</h3>", html) == ["Reward"]
    assert html.count('type="radio"') == 1
    assert "sampled tokens" not in html
    nothing = page(tmp_path, [{"step": 0}])
    assert "<svg" not in nothing


def test_figures_that_are_no_finite_numbers_are_left_out(tmp_path):
    rows = [row(i) for i in range(4)]
    rows[1] |= {"kl": math.nan, "reward": math.inf, "loss": 1e300, "kept": True, "entropy": 10**400}
    html = page(tmp_path, rows)
    assert "nan" not in html.partition("</style>")[2]
    assert "inf" not in html.partition("</style>")[2]


def test_one_row(tmp_path):
    html = page(tmp_path, [row(0, eval_accuracy=0.5, eval_problems=20)])
    assert tiles(html)["accuracy, evaluated"][0] == "0.500"
    assert "· 1 step<" in html
    # A single point is a dot, since a line of it could not be seen.
    assert html.count("<circle") >= 10


def test_a_prm_score_that_is_no_share_has_a_plot_of_its_own(tmp_path):
    html = page(tmp_path, [row(i, prm=-3.0 - i) for i in range(4)])
    assert "<h3>PRM score</h3>" in html
    first = html.partition("<h3>Accuracy and PRM score</h3>")[2].partition("<h3>")[0]
    assert "-3" not in first


def test_ten_thousand_rows_are_thinned(tmp_path):
    alarm = {"monitor": "divergence", "message": "m" * 500, "value": 1.0, "baseline": 0.5}
    rows = [row(i, alarms=[alarm]) for i in range(10_000)]
    html = page(tmp_path, rows)
    assert len(html) < 700_000
    for points in re.findall(r'<polyline[^>]* points="([^"]*)"', html):
        assert len(points.split()) <= POINTS
    assert "the first 200 of 10000" in html


def test_thinned_lines_are_means_between_lowest_and_highest():
    points = [(float(i), float(i % 2)) for i in range(4 * POINTS)]
    drawn = over_time([Series("s", "a0", points)], [], Size(360, 220), "l", "step")
    line = re.search(r'<polyline[^>]* points="([^"]*)"', drawn).group(1).split()
    assert len({place.partition(",")[2] for place in line}) == 1
    band = re.search(r'<polygon class="band a0" points="([^"]*)"', drawn).group(1).split()
    heights = sorted({float(place.partition(",")[2]) for place in band})
    middle = float(line[0].partition(",")[2])
    # The last point is the last row.
    assert line[-1].startswith("346,")
    assert len(heights) == 2
    assert heights[0] < middle < heights[1]
    assert sum(heights) / 2 == pytest.approx(middle, abs=0.1)


@pytest.mark.parametrize("values", [[0.0], [0.0, 0.0], [-5.0, -5.0], [1e-12, 2e-12], [-1e14, 1e14]])
def test_any_range_of_values_has_axes(values):
    points = [(float(i), v) for i, v in enumerate(values)]
    drawn = over_time([Series("s", "a0", points)], [], Size(360, 220), "l", "step")
    numbers = [float(y) for y in re.findall(r'[ "]-?[\d.]+,(-?[\d.e+]+)', drawn)]
    assert all(0 <= y <= 220 for y in numbers)
    assert 2 <= drawn.count('class="tick end"') <= 10


def test_what_is_never_negative_has_no_negative_axis():
    points = [(0.0, 0.0), (1.0, 100.0)]
    drawn = over_time([Series("s", "a0", points)], [], Size(360, 220), "l", "step")
    # 0 is on the lower edge, 40 above the end of the picture.
    assert re.search(r'<polyline[^>]* points="50,180 ', drawn)


def test_short_numbers():
    assert [short(x) for x in (0, 0.01234567, 12, 9999, 12_345, 1_234_567, 2.5e9)] == [
        "0",
        "0.01235",
        "12",
        "9999",
        "12.35k",
        "1.235M",
        "2.5G",
    ]


def test_a_run_at_work(tmp_path):
    rows = "".join(json.dumps(row(i)) + "\n" for i in range(3))
    (tmp_path / "metrics.jsonl").write_text(rows + '{"step": 3, "rew', encoding="utf-8")
    write_rl(tmp_path / "page.html", tmp_path, title="run")
    assert "· 3 steps" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_step_that_was_done_again_counts_as_it_was_done_last(tmp_path):
    rows = [row(0), row(1, accuracy=0.1), row(2), row(1, accuracy=0.9)]
    html = page(tmp_path, rows[:2] + rows[3:])
    assert tiles(html)["accuracy"][0] == "0.500 → 0.900"
    assert "· 2 steps" in html


@pytest.mark.parametrize("line", ["[]", "{}", '{"step": "x"}', "nonsense", '{"step": true}'])
def test_what_is_no_row_is_told_with_its_line(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 0}}\n{line}\n', encoding="utf-8")
    with pytest.raises(FormatError, match=r"metrics\.jsonl:2"):
        write_rl(tmp_path / "page.html", tmp_path, title="run")
    assert not (tmp_path / "page.html").exists()


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(RunFolderError, match=r"no metrics\.jsonl"):
        write_rl(tmp_path / "page.html", tmp_path, title="run")
    (tmp_path / "metrics.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(NothingToMeasure):
        write_rl(tmp_path / "page.html", tmp_path, title="run")


def test_a_config_that_cannot_be_read(tmp_path):
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(FormatError, match=r"config\.json"):
        page(tmp_path, [row(0)])
