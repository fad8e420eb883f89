"""Every record of the real data reads, and its known counts come out."""

import json
from collections import Counter

import pytest

from prmkit.formats import read_records, recognise, write_records


def ratings(records):
    return Counter(r.labels.values[-1] for r in records)


@pytest.mark.parametrize(
    ("split", "n", "rated"),
    [
        ("train", 942, {1: 18_782, 0: 10_234, -1: 19_656}),
        ("test", 106, {1: 2_245, 0: 867, -1: 1_970}),
    ],
)
def test_prm800k(shared_data, split, n, rated):
    path = shared_data / "prm800k" / f"phase1_{split}.jsonl"
    assert recognise(path).name == "prm800k"
    completions = list(read_records(path, view="completions"))
    assert ratings(completions) == rated
    if split == "train":
        assert len(completions) == 48_672
    paths = list(read_records(path))
    assert len(paths) == n
    assert len({r.trajectory.problem.prompt for r in paths}) == {"train": 900, "test": 101}[split]
    # Nearly all that ended in a solution state an answer along the chosen path.
    finished = [r for r in paths if r.trajectory.finish == "answer"]
    assert len(finished) > 0.8 * n
    assert sum(r.trajectory.answer is not None for r in finished) > 0.95 * len(finished)


@pytest.mark.parametrize(
    ("split", "wrong", "right", "right_answer_yet_wrong"),
    [("gsm8k", 207, 193, 7), ("math", 594, 406, 94)],
)
def test_processbench(shared_data, split, wrong, right, right_answer_yet_wrong, tmp_path):
    path = shared_data / "processbench" / f"{split}.json"
    records = list(read_records(path))
    first = [r.labels.first_error for r in records]
    assert (sum(f is not None for f in first), sum(f is None for f in first)) == (wrong, right)
    odd = [r for r, f in zip(records, first, strict=True) if f is not None and r.trajectory.correct]
    assert len(odd) == right_answer_yet_wrong
    write_records(records, tmp_path / "again.json", "processbench")
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads(path.read_text())


def test_prmbench(shared_data, tmp_path):
    path = shared_data / "prmbench" / "prmbench_6216.jsonl.gz"
    records = list(read_records(path))
    assert len(records) == 6_216
    assert len({r.trajectory.problem.id for r in records}) == 6_211
    kinds = Counter(r.meta["classification"] for r in records)
    assert (kinds["circular"], kinds["multi_solutions"], kinds["deception"]) == (758, 165, 750)
    beyond = [r for r in records if max(r.meta["error_steps"], default=0) > len(r.labels.values)]
    assert len(beyond) == 100
    values = [v for r in records for v in r.labels.values]
    assert (values.count(1.0), values.count(0.0)) == (70_307, 13_149)
    write_records(records, tmp_path / "again.jsonl.gz", "prmbench")
    assert [r.labels for r in read_records(tmp_path / "again.jsonl.gz")] == [
        r.labels for r in records
    ]


@pytest.mark.parametrize(("split", "n"), [("train", 7_473), ("test", 1_319)])
def test_gsm8k(shared_data, split, n):
    path = shared_data / "gsm8k" / f"{split}.jsonl"
    records = list(read_records(path))
    assert len(records) == n
    for record, line in zip(records, path.read_text().splitlines(), strict=True):
        assert record.trajectory.text == json.loads(line)["answer"]
        assert record.trajectory.answer


def test_gsm8k_solutions(shared_data):
    records = list(read_records(shared_data / "gsm8k" / "example_model_solutions.jsonl"))
    assert len(records) == 5_276
    right = Counter(r.trajectory.generator for r in records if r.trajectory.correct)
    shares = [round(100 * n / 1_319, 1) for n in sorted(right.values())]
    assert shares == [21.7, 34.7, 39.0, 56.3]


def test_bon_pool(shared_data):
    path = shared_data / "bon_gsm8k" / "gsm8k_candidates.jsonl.gz"
    records = list(read_records(path))
    assert len(records) == 500 * 32
    assert len({r.trajectory.problem.id for r in records}) == 500
    assert sum(r.trajectory.correct for r in records) / 16_000 == pytest.approx(0.9206, abs=5e-5)
    assert all(len(r.scores) == 7 for r in records)


def test_rprm_scores_fit_prmbench(shared_data):
    """Real step scores of R-PRM-7B: one per step of the rows that they name."""
    records = read_records(shared_data / "prmbench" / "prmbench_6216.jsonl.gz")
    steps: dict[str, set[int]] = {}
    for record in records:
        # Five ids occur twice.
        steps.setdefault(record.trajectory.problem.id, set()).add(len(record.trajectory.steps))
    path = shared_data / "prmbench" / "rprm7b_step_scores_6216.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 6_216
    for row in rows:
        assert len(row["scores"]["step_level_validity_scores"]) in steps[row["idx"]]
