"""``prm label`` as it is typed: methods, budgets, folders."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from fake_openai import FakeServer
from prmkit.embedded.build import WEIGHTS
from prmkit.formats.files import read_records


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    from prmkit.cli import main

    folder = tmp_path_factory.mktemp("sampled")
    with pytest.raises(SystemExit) as ended:
        main(f"sample --limit 4 --samples 3 --out {folder / 's'} --json".split())
    assert ended.value.code == 0
    return folder / "s" / "records.jsonl"


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_a_budget_labels_as_far_as_it_goes_and_more_of_it_goes_on(prm, sampled, tmp_path):
    arguments = ("label", sampled, "--limit", 6, "--k", 4, "--json", "-o")
    assert prm(*arguments, tmp_path / "whole")[0] == 0
    whole = list(read_records(tmp_path / "whole" / "records.jsonl"))
    assert {r.labels.source for r in whole} == {"monte_carlo, 4 rollouts"}
    cost = metrics(tmp_path / "whole")["rollouts"]
    code, out, _ = prm(*arguments, tmp_path / "part", "--budget", cost // 2)
    assert code == 3
    part = list(read_records(tmp_path / "part" / "records.jsonl"))
    told = metrics(tmp_path / "part")
    assert part == whole[: len(part)]
    assert 0 < len(part) < len(whole)
    assert told["not_labelled"] == len(whole) - len(part)
    assert cost // 2 - 40 < told["budget_spent"]["rollouts"] <= cost // 2
    drawn = json.loads(out)["rollouts_this_time"]
    assert drawn < cost // 2 + 80
    # The same folder with more to spend: what was drawn is not drawn again.
    code, out, _ = prm(*arguments, tmp_path / "part")
    assert code == 0
    assert list(read_records(tmp_path / "part" / "records.jsonl")) == whole
    assert json.loads(out)["rollouts_this_time"] == cost - drawn
    assert metrics(tmp_path / "part") == metrics(tmp_path / "whole")
    code, _, err = prm(*arguments, tmp_path / "none", "--budget-tokens", 0)
    assert code == 1
    assert "a budget of 0 tokens buys nothing" in " ".join(err.split())
    assert not (tmp_path / "none").exists()


def test_no_resume_begins_anew(prm, sampled, tmp_path):
    arguments = ("label", sampled, "--limit", 2, "--json", "--out", tmp_path / "out")
    first = json.loads(prm(*arguments, "--k", 2)[1])
    assert first["rollouts_this_time"] == first["rollouts"] > 0
    assert json.loads(prm(*arguments, "--k", 2)[1])["rollouts_this_time"] == 0
    code, _, err = prm(*arguments, "--k", 3)
    assert code == 1
    assert "rollouts: 2 there, 3 now" in " ".join(err.split())
    again = json.loads(prm(*arguments, "--k", 3, "--no-resume")[1])
    assert again["rollouts_this_time"] == again["rollouts"] > first["rollouts"]


def test_omega_labels_steps_of_its_own_rollouts(prm, sampled, tmp_path):
    arguments = (
        "label",
        sampled,
        "--method",
        "omega",
        "--limit",
        2,
        "--k",
        4,
        "--searches",
        3,
        "--json",
    )
    code, out, err = prm(*arguments, "--out", tmp_path / "out")
    assert code == 0, err
    assert json.loads(out)["solutions"] == 2
    records = list(read_records(tmp_path / "out" / "records.jsonl"))
    assert len(records) > 4
    for record in records:
        *before, last = record.labels.values
        assert (set(before) or {None}) == {None}
        assert last == record.labels.successes[-1] / record.labels.trials[-1]
        assert record.labels.trials[-1] == 4
        assert record.trajectory.problem.answer is not None
    # Each prefix once, and each one after another that is there, or after none.
    texts = Counter(r.trajectory.text for r in records)
    assert set(texts.values()) == {1}
    assert prm(*arguments, "--out", tmp_path / "b", "--in-flight", 1)[0] == 0
    assert list(read_records(tmp_path / "b" / "records.jsonl")) == records


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "omega", "--consensus", "x.jsonl"], "leave out --consensus"),
        (["--alpha", "0.4"], "alpha, beta, length and c_puct have no meaning for the method mc"),
        (["--method", "omega", "--alpha", "0"], "alpha is 0.0; it must be above 0"),
        (["--k", "3", "--rollouts", "4"], "k is 3 and rollouts 4; they are the same"),
        (["--votes", "3"], "votes has no meaning for the method mc"),
        (["--method", "omega", "--split", "words"], "words"),
        (["--in-flight", "0"], "in_flight is 0"),
    ],
)
def test_what_has_no_meaning_is_told_before_any_work(prm, sampled, tmp_path, arguments, message):
    code, _, err = prm("label", sampled, *arguments, "--out", tmp_path / "out")
    assert code == 1
    assert message in " ".join(err.split())
    assert not (tmp_path / "out").exists()


def test_over_a_server(prm, sampled, tmp_path):
    weights = str(WEIGHTS / "policy")
    with FakeServer("vllm", weights, real=True, faults=0.1, kinds=("busy", "garbled")) as server:
        there = ("--server", server.url, "--tokenizer", "embedded/policy", "--concurrency", 4)
        arguments = ("label", sampled, "--limit", 1, "--k", 2, "--json", "--max-new-tokens", 60)
        priced = (*arguments, *there, "--prices", 0.5, 2, "--out", tmp_path / "out")
        code, out, err = prm(*priced)
        assert code == 0, err
        told = json.loads(out)
        assert told["rollouts"] == told["rollouts_this_time"] > 0
        assert told["failed_rollouts"] == 0
        assert server.most_under_way <= 4
        dollars = (told["prompt_tokens_this_time"] * 0.5 + told["tokens"] * 2) / 1e6
        assert told["dollars_this_time"] == pytest.approx(dollars, abs=6e-5)
        records = (tmp_path / "out" / "records.jsonl").read_bytes()
        assert json.loads(prm(*priced)[1])["rollouts_this_time"] == 0
        assert (tmp_path / "out" / "records.jsonl").read_bytes() == records
        sample = ("sample", "--limit", 1, "--samples", 2, "--json", "--max-new-tokens", 60, *there)
        code, out, err = prm(*sample, "--out", tmp_path / "drawn")
        assert code == 0, err
        assert json.loads(out)["problems"] == 1
    code, _, err = prm(*arguments, *there, "--attempts", 1, "--out", tmp_path / "gone")
    assert code == 1
    assert "did not answer" in " ".join(err.split())
    assert not (tmp_path / "gone").exists()
    code, _, err = prm(*arguments, "--prices", 1, 1, "--out", tmp_path / "free")
    assert code == 1
    assert "prices have no meaning without a server" in " ".join(err.split())
