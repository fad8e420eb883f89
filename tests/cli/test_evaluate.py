"""``prm evaluate`` and ``prm compare`` as they are typed."""

import json
import subprocess
import sys

import pytest
import yaml

import published_rows as rows
from prmkit.evaluation.benchmarks import BENCHMARKS
from prmkit.evaluation.results import CASES, SCORES, read_run

FILES = (CASES, SCORES, "metrics.json", "table.md", "table.tex", "report.html", "config.json")


@pytest.fixture
def data(tmp_path):
    return rows.processbench(tmp_path / "data")


@pytest.fixture
def scores(tmp_path, data):
    cases = BENCHMARKS["processbench"].read(data)
    lines = []
    for case in cases:
        n, wrong = len(case.record.trajectory.steps), case.record.labels.first_error
        good = [0.1 if i == wrong else 0.9 for i in range(n)]
        lines.append({"id": case.id, "scores": {"good": good, "blind": [0.8] * n}})
    return rows.jsonl(tmp_path / "scores.jsonl", lines)


def test_the_benchmarks_are_listed(prm):
    code, out, _ = prm("evaluate")
    assert code == 0
    code, told, _ = prm("evaluate", "--json")
    listed = [json.loads(line) for line in told.splitlines()]
    assert code == 0
    assert {b["name"] for b in listed} == {*BENCHMARKS, "embedded", "embedded_ood"}
    assert all(b["name"] in out for b in listed)
    assert next(b for b in listed if b["name"] == "prmbench")["published_rows"] == 19


def test_scores_of_a_file_become_tables_and_a_page(prm, tmp_path, data, scores):
    out = tmp_path / "run"
    code, told, err = prm("evaluate", "processbench", "--data", data, "--scores", scores, "-o", out)
    assert code == 0, err
    assert "gsm8k: 4 cases; 400 are published" in err
    assert "f1" in told
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["models"]["good"]["figures"]["f1"]["value"] == 1
    assert metrics["models"]["blind"]["figures"]["f1"] == {
        "value": 0.0,
        "low": 0.0,
        "high": 0.0,
        "n": 7,
    }
    table = (out / "table.md").read_text()
    assert "| Qwen2.5-Math-PRM-7B | 82.4 | 77.6 | 73.5 |" in table
    assert "| **good** | **100.0** | **100.0** | **100.0** |" in table
    latex = (out / "table.tex").read_text()
    assert r"Qwen2.5-Math-PRM-7B & 82.4 & 77.6 & 73.5 & -- & -- \\" in latex
    assert latex.count(r"\midrule") == 2
    page = (out / "report.html").read_text()
    assert "Beside published rows" in page
    assert "The worst mistakes" not in page  # the first judge makes none
    assert sorted(p.name for p in out.iterdir()) == sorted(FILES)
    code, told, _ = prm(
        "evaluate", "processbench", "--data", data, "--scores", scores, "-o", out, "--json"
    )
    assert json.loads(told) == metrics


def test_untrusted_names_do_no_harm(prm, tmp_path, data):
    name = "<script>|\\textbf{x}_[\x1b"
    lines = [
        {"id": case.id, "model": name, "first_error": 0}
        for case in BENCHMARKS["processbench"].read(data)
    ]
    scores = rows.jsonl(tmp_path / "s.jsonl", lines)
    out = tmp_path / "run"
    code, told, _ = prm("evaluate", "processbench", "--data", data, "--scores", scores, "-o", out)
    assert code == 0
    assert "\x1b" not in told
    assert "<script>|" not in (out / "report.html").read_text()
    assert "\\<script\\>\\|" in (out / "table.md").read_text()
    assert r"\textbackslash{}textbf\{x\}\_[" in (out / "table.tex").read_text()


def test_comparing(prm, tmp_path, data, scores):
    one, two = tmp_path / "one", tmp_path / "two"
    prm("evaluate", "processbench", "--data", data, "--scores", scores, "-o", one)
    lines = [json.loads(line) for line in scores.read_text().splitlines()]
    alone = [{"id": r["id"], "model": "good", "scores": r["scores"]["good"]} for r in lines]
    other = rows.jsonl(tmp_path / "other.jsonl", alone)
    prm("evaluate", "processbench", "--data", data, "--scores", other, "-o", two)
    code, told, _ = prm("compare", one, two, "-o", tmp_path / "both")
    assert code == 0
    assert "-100.0" in told
    assert "agreement of good and blind" in told
    assert "good (two)" in told
    found = json.loads((tmp_path / "both" / "compare.json").read_text())
    assert found["compared_with"] == "good"
    blind = found["figures"]["gsm8k/f1"]["blind"]
    assert blind["to_first"]["value"] == -1
    assert 0 < blind["p"] <= 1
    same = found["figures"]["gsm8k/f1"]["good (two)"]
    assert (same["to_first"]["value"], same["p"]) == (0, 1)
    assert found["agreement"][1]["judges"] == ["good", "good (two)"]
    assert found["agreement"][1]["steps/kappa"]["value"] == 1
    assert "| good |" in (tmp_path / "both" / "table.md").read_text()
    code, told, _ = prm("compare", one, "--json")
    assert json.loads(told)["cases"] == 7


def test_comparisons_that_make_no_sense(prm, tmp_path, data, scores):
    one, two, three = tmp_path / "one", tmp_path / "two", tmp_path / "three"
    prm("evaluate", "processbench", "--data", data, "--scores", scores, "-o", one)
    prm("evaluate", "processbench", "--data", data, "--limit", 2, "--scores", scores, "-o", two)
    code, _, err = prm("compare", one, tmp_path / "nothing")
    assert code == 1
    assert "no finished run of prm evaluate" in err
    lines = [{"id": "gsm8k-0", "model": "m", "first_error": 0}]
    few = rows.jsonl(tmp_path / "few.jsonl", lines)
    prm("evaluate", "processbench", "--data", data, "--limit", 2, "--scores", few, "-o", three)
    code, _, err = prm("compare", one, three)
    assert code == 1
    assert "7 cases" in err
    assert "2, and they are not the same ones" in err
    code, _, err = prm("compare", three)
    assert code == 1
    assert "two are needed" in err
    (one / SCORES).write_text("{}\n")
    code, _, err = prm("compare", one, one)
    assert code == 1
    assert "is damaged" in err


def test_a_refused_command_leaves_the_folder_for_the_right_one(prm, tmp_path, data, scores):
    out = tmp_path / "run"
    given = ("evaluate", "processbench", "--scores", scores, "-o", out)
    for wrong in (
        ("--data", tmp_path / "nowhere"),
        ("--data", data, "--tune-on", "x"),
        ("--data", data, "--training", tmp_path / "nofile"),
    ):
        assert prm(*given, *wrong)[0] == 1
        assert not out.exists()
    assert prm(*given, "--data", data, "--name", "x")[0] == 1
    assert prm("evaluate", "processbench", "--data", data, "--model", "nofolder", "-o", out)[0] == 1
    assert prm(*given, "--data", data)[0] == 0


def test_comparisons_are_by_the_settings_of_each_run(prm, tmp_path, data):
    lines = [
        {"id": c.id, "model": "m", "scores": [0.4] * len(c.record.trajectory.steps)}
        for c in BENCHMARKS["processbench"].read(data)
    ]
    scores = rows.jsonl(tmp_path / "s.jsonl", lines)
    runs = []
    for threshold in ("0.3", "0.5"):
        runs.append(tmp_path / f"at{threshold}")
        prm(
            "evaluate", "processbench", "--data", data, "--scores", scores, "-o", runs[-1],
            "--threshold", threshold,
        )  # fmt: skip
    code, told, err = prm("compare", *runs)
    assert code == 0
    assert "m (at0.5) was measured with threshold 0.5" in err
    _, told, _ = prm("compare", *runs, "--json")
    row = json.loads(told)["figures"]["gsm8k/accuracy_right"]
    assert (row["m"]["value"], row["m (at0.5)"]["value"]) == (1, 0)
    # Settings that are given hold for all.
    _, told, _ = prm("compare", *runs, "--json", "--threshold", "0.3")
    assert json.loads(told)["figures"]["gsm8k/accuracy_right"]["m (at0.5)"]["value"] == 1
    code, _, err = prm("compare", *runs, "-o", runs[0])
    assert code == 1
    assert "holds a run" in err


def test_only_cases_that_all_scored_are_compared(prm, tmp_path, data, scores):
    lines = [json.loads(line) for line in scores.read_text().splitlines()]
    whole = [{"id": r["id"], "model": "a", "scores": r["scores"]["good"]} for r in lines]
    part = [{**r, "model": "b"} for r in whole[1:]]
    both = rows.jsonl(tmp_path / "both.jsonl", [*whole, *part])
    out = tmp_path / "run"
    assert prm("evaluate", "processbench", "--data", data, "--scores", both, "-o", out)[0] == 3
    code, _, err = prm("compare", out, "-o", tmp_path / "compared")
    assert code == 0
    assert "Not scored: 1 by b." in err
    found = json.loads((tmp_path / "compared" / "compare.json").read_text())
    assert (found["cases"], found["unscored"]) == (6, {"a": 0, "b": 1})
    assert found["figures"]["f1"]["b"]["to_first"]["value"] == 0
    assert "Not scored: 1 by b." in (tmp_path / "compared" / "table.md").read_text()


def test_scores_of_more_cases_than_are_measured(prm, tmp_path, data, scores):
    out = tmp_path / "run"
    code, _, _ = prm(
        "evaluate", "processbench", "--data", data, "--scores", scores, "--limit", 2, "-o", out
    )
    assert code == 0
    assert len(read_run(out).cases) == 2


def test_a_pool_without_scores_is_measured_by_chance(prm, tmp_path):
    row = {
        "question": "1+1?",
        "ground_truth": "So 2.\n#### 2",
        "a": {"is_correct": False, "solution": "So 3.\n#### 3"},
        "b": {"is_correct": True, "solution": "So 2.\n#### 2"},
    }
    data = rows.jsonl(tmp_path / "x.jsonl", [row])
    out = tmp_path / "run"
    code, _, err = prm("evaluate", "best_of_n", "--data", data, "-o", out)
    assert code == 0, err
    figures = json.loads((out / "metrics.json").read_text())["models"]["chance (equal scores)"]
    assert figures["figures"]["best_of_2/min"]["value"] == 0.5
    assert figures["figures"]["pass_2"]["value"] == 1


def test_the_worst_picks_and_misses_are_shown(prm, tmp_path, data):
    out = tmp_path / "pool"
    pool = rows.best_of_n(tmp_path / "p")
    prm("evaluate", "best_of_n", "--data", pool, "-o", out, "--name", "x")
    prm("evaluate", "best_of_n", "--data", pool, "-o", out)
    page = (out / "report.html").read_text()
    assert "The worst mistakes" in page
    assert "picked" in page
    lines = [{"id": c.id, "first_error": 0} for c in BENCHMARKS["processbench"].read(data)]
    critic = rows.jsonl(tmp_path / "critic.jsonl", lines)
    prm("evaluate", "processbench", "--data", data, "--scores", critic, "-o", tmp_path / "c")
    page = (tmp_path / "c" / "report.html").read_text()
    assert "the judge says that step 1 is the first wrong one" in page


def test_a_model_that_changed_is_not_measured_by_its_old_scores(prm, tmp_path):
    from prmkit.testing import tiny_checkpoint

    folder = tiny_checkpoint("qwen_prm", tmp_path / "model")
    given = (
        "evaluate", "processbench", "--data", rows.processbench(tmp_path / "d"), "--model", folder,
        "--family", "qwen_prm", "-o", tmp_path / "run",
    )  # fmt: skip
    assert prm(*given)[0] == 0
    assert prm(*given)[0] == 0
    weights = next(folder.glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    code, _, err = prm(*given)
    assert code == 1
    assert "belongs to a run with other settings" in err


def test_errors_of_the_system_are_told(prm, tmp_path, data, scores):
    file = tmp_path / "file"
    file.write_text("x")
    code, _, err = prm(
        "evaluate", "processbench", "--data", data, "--scores", scores, "-o", file / "run"
    )
    assert code == 1
    assert err.startswith("error: ")


def test_limit_keeps_whole_problems(prm, tmp_path):
    data = rows.best_of_n(tmp_path / "pool")
    out = tmp_path / "run"
    code, _, _ = prm("evaluate", "best_of_n", "--data", data, "--limit", 1, "-o", out)
    assert code == 0
    assert [case.id for case in read_run(out).cases] == ["p0/0", "p0/1", "p0/2"]
    assert "best\\_of\\_3/min | 1.0000 | 1.0000 |" in (out / "table.md").read_text()


def test_not_scored_is_told_and_code_3(prm, tmp_path, data):
    scores = rows.jsonl(tmp_path / "s.jsonl", [{"id": "gsm8k-0", "first_error": 1}])
    out = tmp_path / "run"
    code, _, err = prm("evaluate", "processbench", "--data", data, "--scores", scores, "-o", out)
    assert code == 3
    assert "not scored (6): the file of scores does not hold this case" in err
    metrics = json.loads((out / "metrics.json").read_text())
    model = metrics["models"]["s"]
    assert (model["scored"], model["unscored"]) == (1, 6)
    assert "Not scored and left out: 6 by s" in (out / "table.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["no_such"], "no benchmark is called 'no_such'"),
        (["processbench"], "--data"),
        (["best_of_n"], "no public data: give files with --data"),
        (["best_of_n", "--revision", "x"], "elsewhere"),
        (["processbench", "--data", "DATA"], "there is no judge"),
        (["processbench", "--data", "DATA", "--limit", "0"], "limit is 0"),
        (["processbench", "--data", "DATA", "--shard", "2/2"], "write i/n with i from 0"),
        (["processbench", "--data", "DATA", "--shard", "0/2"], "--shard is for running a model"),
        (["processbench", "--data", "DATA", "--scores", "SCORES", "--shard", "0/2"], "as a whole"),
        (["processbench", "--data", "DATA", "--scores", "SCORES", "--robustness"], "--model"),
        (["processbench", "--data", "DATA", "--scores", "SCORES", "--model", "x"], "give either"),
        (["processbench", "--data", "DATA", "--scores", "SCORES", "--name", "x"], "one judge"),
        (["processbench", "--data", "DATA", "--scores", "SCORES", "--tune-on", "x"], "no split"),
        (["processbench", "--data", "DATA", "--scores", "SCORES", "--scores", "SCORES"], "in two"),
        (["processbench", "--data", "DATA", "--scores", "SCORES", "--draws", "0"], "draws is 0"),
        (["processbench", "--data", "DATA", "--scores", "nowhere"], "no file of scores"),
        (["processbench", "--data", "DATA", "--scores", "SCORES", "--revision", "x"], "elsewhere"),
        (["processbench", "--data", "DATA", "--scores", "SCORES", "--ties", "first"], "no picks"),
        (["processbench", "--data", "DATA", "--model", "x", "--redundancy", "7"], "from 0 to 1"),
        (["mr_math", "--data", "DATA", "--hub-results"], "no data set on the Hugging Face hub"),
        (["best_of_n", "--data", "DATA", "--tune-on", "x"], "no splits"),
        (["--scores", "SCORES"], "name the benchmark"),
        (["processbench", "--data", "DATA", "--training", "nofile"], "no such file"),
        (["embedded", "--shard", "0/2", "--robustness"], "without --shard"),
    ],
)
def test_refusals(prm, tmp_path, monkeypatch, data, scores, arguments, told):
    monkeypatch.chdir(tmp_path)
    # No network here, and none is tried.
    monkeypatch.setitem(sys.modules, "datasets", None)
    given = [{"DATA": data, "SCORES": scores}.get(a, a) for a in arguments]
    code, _, err = prm("evaluate", *given, "-o", tmp_path / "out")
    assert code == 1
    assert told in err.replace("\n", " ")


def test_a_run_with_other_settings_is_refused(prm, tmp_path, data, scores):
    out = tmp_path / "run"
    given = ("evaluate", "processbench", "--data", data, "--scores", scores, "-o", out)
    assert prm(*given)[0] == 0
    code, _, err = prm(*given, "--threshold", "0.3")
    assert code == 1
    assert "other settings" in err


def test_contaminated_problems_are_told_and_left_out(prm, tmp_path, data, scores):
    training = rows.jsonl(
        tmp_path / "train.jsonl",
        [{"prompt": "GSM8K  problem 2!", "completions": ["a"], "labels": [True]}],
    )
    out = tmp_path / "run"
    code, _, err = prm(
        "evaluate", "processbench", "--data", data, "--scores", scores, "-o", out,
        "--training", training,
    )  # fmt: skip
    assert code == 0
    assert "1 of 7 problems are among those that the model was trained on" in err
    found = json.loads((out / "metrics.json").read_text())["contamination"]
    assert (found["problems_seen_exactly"], found["cases_seen"]) == (1, 1)
    assert found["without_them"]["good"]["gsm8k/accuracy_wrong"]["n"] == 1
    assert "metrics.json has the figures without them" in (out / "report.html").read_text()


def test_the_hub_form_of_results(prm, tmp_path, data, scores):
    out = tmp_path / "run"
    code, _, _ = prm(
        "evaluate", "processbench", "--data", data, "--scores", scores, "-o", out, "--hub-results",
    )  # fmt: skip
    assert code == 0
    entries = yaml.safe_load((out / "eval_results" / "good.yaml").read_text())
    by_task = {e["dataset"]["task_id"]: e for e in entries}
    assert by_task["f1"]["value"] == 100
    assert by_task["f1"]["dataset"]["id"] == "Qwen/ProcessBench"
    assert "revision" not in by_task["f1"]["dataset"]
    assert "gsm8k_f1" in by_task
    assert "optimum_f1" not in by_task
    assert "not the published data: gsm8k: 4 cases" in by_task["f1"]["notes"]


N_CASES, BATCH = 200, 32

SCRIPTED = """
import os, signal, sys
import prmkit.cli.judging as command
from prmkit.cli import main
from prmkit.ledger import seed_for
from prmkit.records import StepScores

stop_at, n_scored = int(sys.argv[1]), 0

class Scripted:
    name, semantics = "scripted", "value"

    def score(self, trajectories):
        global n_scored
        if n_scored + len(trajectories) > stop_at:
            os.kill(os.getpid(), signal.SIGKILL)
        n_scored += len(trajectories)
        return [
            StepScores(
                values=tuple(seed_for(i, t.key) % 1000 / 999 for i in range(len(t.steps))),
                semantics="value",
                model="scripted",
            )
            for t in trajectories
        ]

command.open_scorer = lambda how: Scripted()
command.about_model = lambda how, scorer: {"name": scorer.name}
try:
    main(sys.argv[2:])
finally:
    print("scored here:", n_scored, file=sys.stderr)
"""


@pytest.fixture
def scripted(tmp_path):
    """Runs the command in a process of its own, with a scorer of known words."""
    lines = [rows.processbench_row("gsm8k", i, 1 + i % 5, i % 3 - 1) for i in range(N_CASES)]
    lines = [r if r["label"] < len(r["steps"]) else {**r, "label": -1} for r in lines]
    data = rows.as_json(tmp_path / "gsm8k.json", lines)

    def evaluate(out, *more, stop_at=10_000):
        given = ["evaluate", "processbench", "--data", data, "--model", "m", "-o", out, *more]
        return subprocess.run(
            [sys.executable, "-c", SCRIPTED, str(stop_at), *map(str, given)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )

    return evaluate


def test_a_killed_evaluation_ends_with_the_same_bytes(tmp_path, scripted):
    """Killed half way, the same command scores the rest alone and writes the same files."""
    killed = scripted(tmp_path / "killed", stop_at=100)
    assert killed.returncode == -9
    assert not (tmp_path / "killed" / "metrics.json").exists()
    again = scripted(tmp_path / "killed")
    assert again.returncode == 0, again.stderr
    # Three batches were noted before it was killed.
    assert f"scored here: {N_CASES - 3 * BATCH}\n" in again.stderr
    whole = scripted(tmp_path / "whole")
    assert f"scored here: {N_CASES}\n" in whole.stderr
    for name in FILES:
        left = (tmp_path / "killed" / name).read_bytes()
        assert left == (tmp_path / "whole" / name).read_bytes(), name
    assert "scored here: 0\n" in scripted(tmp_path / "killed").stderr


def test_shards_and_then_the_whole(tmp_path, scripted):
    out = tmp_path / "run"
    # Seven batches: 0, 3, 6 and 1, 4 and 2, 5.
    for shard, done, n in (("1/3", 1, 64), ("0/3", 2, 72), ("2/3", 3, 64)):
        ran = scripted(out, "--shard", shard)
        assert ran.returncode == 0, ran.stderr
        assert f"scored here: {n}\n" in ran.stderr
        assert f"{done} of 3 shards are done" in ran.stderr
    lines = (out / "scores-0-of-3.jsonl").read_text().splitlines()
    assert len(lines) == 72
    assert not (out / "metrics.json").exists()
    assert "scored here: 0\n" in scripted(out).stderr
    assert scripted(tmp_path / "alone").returncode == 0
    for name in FILES:
        assert (out / name).read_bytes() == (tmp_path / "alone" / name).read_bytes(), name


EMBEDDED = ("evaluate", "embedded", "--limit", "2", "--resamples", "50")


def test_the_embedded_world_with_robustness(prm, tmp_path):
    out = tmp_path / "run"
    code, told, _ = prm(*EMBEDDED, "--robustness", "-o", out)
    assert code == 0
    assert "first_error/f1" in told
    model = json.loads((out / "metrics.json").read_text())["models"]["embedded/prm"]
    assert model["figures"]["first_error/f1"]["value"] > 0.5
    assert 0 <= model["diagnostics"]["robustness/confidence/verdict_changed"]["value"] <= 1
    assert {"lowest_is_last"} <= {k.split("/")[-1] for k in model["diagnostics"]}
    assert model["aggregations"][0]["to_best"]["value"] == 0


def test_labels_alone_are_not_for_models(prm, tmp_path):
    folder = rows.agent_process_bench(tmp_path / "data")
    code, _, err = prm(
        "evaluate", "agent_process_bench", "--data", folder, "--model", "embedded/prm",
        "-o", tmp_path / "out",
    )  # fmt: skip
    assert code == 1
    assert "has labels alone and no text" in err


class FakeDatasets:
    """What prmkit uses of the library datasets."""

    def __init__(self, parts):
        self.parts, self.asked = parts, []

    def get_dataset_config_names(self, hub, revision):
        return sorted({config for config, _ in self.parts})

    def load_dataset(self, hub, config, revision):
        self.asked.append((hub, config, revision))
        return {split: data for (name, split), data in self.parts.items() if name == config}


@pytest.mark.parametrize("several", [False, True])
def test_data_of_the_hub_are_fetched_once(prm, tmp_path, monkeypatch, several):
    splits = {
        split: [rows.processbench_row(split, i, n, label) for i, (n, label) in enumerate(cases)]
        for split, cases in rows.PROCESSBENCH.items()
    }
    parts = {(s, "test") if several else ("default", s): data for s, data in splits.items()}
    fake = FakeDatasets(parts)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    lines = [{"id": r["id"], "first_error": r["label"]} for s in splits.values() for r in s]
    scores = rows.jsonl(tmp_path / "s.jsonl", lines)
    given = ("evaluate", "processbench", "--scores", scores, "-o", tmp_path / "run")
    code, _, err = prm(*given, "--revision", "c0ffee")
    assert code == 0, err
    assert {(hub, revision) for hub, _, revision in fake.asked} == {("Qwen/ProcessBench", "c0ffee")}
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["source"]["revision"] == "c0ffee"
    assert metrics["models"]["s"]["figures"]["f1"]["value"] == 1
    n_asked = len(fake.asked)
    assert prm(*given, "--revision", "c0ffee")[0] == 0
    assert len(fake.asked) == n_asked


def test_no_network_is_told(prm, tmp_path, monkeypatch):
    class Unreachable(FakeDatasets):
        def get_dataset_config_names(self, hub, revision):
            raise ConnectionError("no route")

    monkeypatch.setitem(sys.modules, "datasets", Unreachable({}))
    code, _, err = prm(
        "evaluate", "processbench", "--revision", "x", "--model", "embedded/prm",
        "-o", tmp_path / "run",
    )  # fmt: skip
    assert code == 1
    assert "cannot be fetched (ConnectionError: no route)" in err
    assert "--data" in err


def test_data_that_cannot_be_fetched_leave_no_folder(prm, tmp_path, monkeypatch):
    from prmkit.errors import NothingToMeasure
    from prmkit.evaluation import hub

    def offline(benchmark, folder, revision):
        (folder / "half").mkdir(parents=True)
        raise NothingToMeasure("there is no network")

    monkeypatch.setattr(hub, "fetch", offline)
    code, _, err = prm("evaluate", "bigbench_mistake", "--scores", "x", "--out", tmp_path / "out")
    assert code == 1
    assert "there is no network" in err
    assert not (tmp_path / "out").exists()
