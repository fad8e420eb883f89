"""The engine ray against this process: one Ray for the whole file, two cores, no cluster."""

import json
import os
import subprocess
import sys

import pytest

from prmkit.engines import EngineSettings, Tables, plan_batches
from prmkit.errors import FormatError, RunFolderError, WorkerError
from prmkit.formats import read_records, write_records
from ray_workers import StartFailing, StartMarking, records


@pytest.fixture(scope="module")
def ray():
    """A Ray of this machine, small."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(p for p in sys.path if p))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            address="local",
            num_cpus=2,
            object_store_memory=100_000_000,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
        )
        yield ray
        ray.shutdown()


def run(source, make, folder, *, batch_size, actors=2, **how):
    from prmkit.on_ray import run_on_ray

    settings = EngineSettings(engine="ray", actors=actors)
    return run_on_ray(source, make, folder, settings, batch_size=batch_size, about={}, **how)


def here(given, make, size):
    """The same worker in this process."""
    worker = make()
    return [r for at in range(0, len(given), size) for r in worker(given[at : at + size])]


def lines(given):
    return [record.model_dump_json() for record in given]


@pytest.fixture
def marks(tmp_path):
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


def rows(marks):
    return sorted(int(mark.name.split("-")[0]) for mark in marks.iterdir())


@pytest.mark.parametrize(("size", "actors"), [(7, 1), (4, 2)])
def test_the_output_is_that_of_this_process(ray, tmp_path, marks, size, actors):
    given, make, told = records(30), StartMarking(marks), []
    expected = here(given, make, size)
    assert len({r.labels.values for r in expected}) > 3
    got = run(
        iter(given), make, tmp_path / "parts", batch_size=size, actors=actors,
        on_progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert lines(got) == lines(expected)
    assert rows(marks) == sorted([*range(0, 30, size)] * 2)
    assert sorted(told) == told
    assert told[-1] == (30, 30)


@pytest.mark.slow
def test_tables_are_read_where_they_are(ray, tmp_path, marks):
    given, make = records(20), StartMarking(marks)
    write_records(given, tmp_path / "a.parquet")
    got = run(Tables((tmp_path / "a.parquet",)), make, tmp_path / "parts", batch_size=6)
    assert lines(got) == lines(here(given, make, 6))
    assert not (tmp_path / "parts" / "input").exists()


@pytest.mark.slow
def test_what_is_finished_is_not_computed_again(ray, tmp_path, marks):
    given, make, folder = records(24), StartMarking(marks), tmp_path / "parts"
    expected = here(given, make, 4)
    batches = plan_batches(iter(given), folder, 4, {})
    for number in (1, 4, 5):
        batches.finish(number, make()(batches.read(number)))
    for mark in marks.iterdir():
        mark.unlink()
    told = []
    got = run(
        iter(given), make, folder, batch_size=4, on_progress=lambda *now: told.append(now)
    )  # fmt: skip
    assert lines(got) == lines(expected)
    assert rows(marks) == [0, 8, 12]
    assert told[0] == (12, 24)
    # All is there: this time Ray is not even asked.
    assert lines(run(iter(given), make, folder, batch_size=4)) == lines(expected)
    assert rows(marks) == [0, 8, 12]


@pytest.mark.parametrize(
    ("how", "kind", "message"),
    [
        ("refuses", FormatError, r"^data\.jsonl:9: this row is no good$"),
        pytest.param(
            "bug",
            WorkerError,
            r"failed on the records 9 to 12: ZeroDivisionError: a bug \(.*ray_workers",
            marks=pytest.mark.slow,
        ),
        pytest.param("start", FormatError, "^model:3: no such model$", marks=pytest.mark.slow),
    ],
)
def test_what_a_worker_raises_comes_out_as_it_was(ray, tmp_path, how, kind, message):
    with pytest.raises(kind, match=message):
        list(run(records(20), StartFailing(how, 9), tmp_path / "parts", batch_size=4))
    # The run can be gone on with when that is mended.
    got = run(records(20), StartFailing("not", 9), tmp_path / "parts", batch_size=4)
    assert lines(got) == lines(records(20))


@pytest.mark.slow
def test_a_bad_row_is_told_with_file_and_row(ray, tmp_path, marks):
    path = tmp_path / "a.parquet"
    write_records(records(9), path)
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    version = pa.array([1] * 6 + [7] + [1] * 2, pa.int64())
    pq.write_table(table.set_column(0, "version", version), path)
    with pytest.raises(FormatError, match=r"a\.parquet:7: version: .*should be 1"):
        list(run(Tables((path,)), StartMarking(marks), tmp_path / "parts", batch_size=4))


@pytest.mark.slow
def test_parts_that_are_not_seen_here_are_told(ray, tmp_path, marks, monkeypatch):
    """As if the folder of the actors' machine were another one."""
    from prmkit.engines import Batches

    monkeypatch.setattr(Batches, "is_done", lambda self, number: number != 1)
    with pytest.raises(RunFolderError, match="the records 5 to 8 are not finished"):
        list(run(records(12), StartMarking(marks), tmp_path / "parts", batch_size=4))


def test_another_cluster_is_not_taken_for_this_one(ray, tmp_path, marks):
    from prmkit.on_ray import run_on_ray

    settings = EngineSettings(engine="ray", address="10.0.0.1:6379")
    with pytest.raises(WorkerError, match=r"connected to the Ray cluster at .* already"):
        list(
            run_on_ray(
                records(3), StartMarking(marks), tmp_path / "p", settings, batch_size=2, about={}
            )
        )


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "127.0.0.1:x"])
def test_an_address_where_nobody_is_is_told_at_once(address):
    from prmkit.on_ray import _knock

    with pytest.raises(WorkerError, match=f"nobody answers at '{address}'"):
        _knock(address)


@pytest.mark.slow
def test_prm_score_writes_the_same_file(ray, prm, tmp_path):
    write_records(records(70), tmp_path / "a.jsonl")
    write_records(records(70), tmp_path / "a.parquet")
    assert prm("score", tmp_path / "a.jsonl", "-o", tmp_path / "1.jsonl")[0] == 0
    on_ray = ("--engine", "ray", "--cpus-per-actor", 0.5)
    code, _, err = prm("score", tmp_path / "a.parquet", "-o", tmp_path / "2.jsonl", *on_ray)
    assert code == 0, err
    assert "scored: 70" in err
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    # Nothing is left beside it.
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "1.jsonl", "2.jsonl", "a.jsonl", "a.parquet",
    ]  # fmt: skip


def test_commands_refuse_what_has_no_meaning(prm, tmp_path):
    def told(*arguments):
        code, _, err = prm(*arguments)
        assert code == 1
        return err.replace("\n", " ")

    file = tmp_path / "a.jsonl"
    write_records(records(2), file)
    out = ("-o", tmp_path / "b.jsonl")
    assert "--engine ray needs --out" in told("score", file, "--engine", "ray")
    assert "add --engine ray" in told("score", file, *out, "--actors", 2)
    assert "give a multiple of 64" in told(
        "score", file, *out, "--engine", "ray", "--batch-size", 10
    )
    assert "give more --actors" in told("evaluate", "embedded", "--engine", "ray",
                                        "--shard", "0/2", "--out", tmp_path / "e")  # fmt: skip
    assert not (tmp_path / "e").exists()


def test_without_ray_the_command_that_installs_it_is_told():
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from prmkit.errors import MissingDependency\n"
        "try: import prmkit.on_ray\n"
        "except MissingDependency as error: print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'prmkit[ray]'" in ran.stdout


def test_scores_as_a_table(prm, tmp_path):
    write_records(records(5), tmp_path / "a.jsonl")
    for name in ("b.jsonl", "b.parquet"):
        assert prm("score", tmp_path / "a.jsonl", "-o", tmp_path / name)[0] == 0
    assert list(read_records(tmp_path / "b.parquet")) == list(read_records(tmp_path / "b.jsonl"))


@pytest.mark.slow
def test_a_batch_that_kills_its_workers_ends_the_run(ray, tmp_path):
    with pytest.raises(WorkerError, match="5 workers in turn died over the records 9 to 12"):
        list(run(records(20), StartFailing("dies", 9), tmp_path / "parts", batch_size=4))


@pytest.mark.slow
def test_prm_sample_and_evaluate_write_the_same_files(ray, prm, tmp_path):
    on_ray = ("--engine", "ray", "--actors", 2, "--cpus-per-actor", 0.5)
    sample = ("sample", "--limit", 12, "--samples", 3, "--out")
    assert prm(*sample, tmp_path / "s1")[0] == 0
    code, _, err = prm(*sample, tmp_path / "s2", *on_ray, "--batch-size", 5)
    assert code == 0, err
    for name in ("records.jsonl", "metrics.json", "config.json"):
        assert (tmp_path / "s1" / name).read_bytes() == (tmp_path / "s2" / name).read_bytes()
    name = "embedded"
    evaluate = ("evaluate", name, "--limit", 40, "--robustness", "--resamples", 20, "--out")
    assert prm(*evaluate, tmp_path / "e1")[0] == 0
    code, _, err = prm(*evaluate, tmp_path / "e2", *on_ray)
    assert code == 0, err
    names = {p.name for p in (tmp_path / "e1").iterdir() if p.is_file()} - {"robustness.sqlite"}
    assert "metrics.json" in names
    for name in names:
        assert (tmp_path / "e1" / name).read_bytes() == (tmp_path / "e2" / name).read_bytes(), name


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    from prmkit.cli import main

    folder = tmp_path_factory.mktemp("sampled") / "s"
    with pytest.raises(SystemExit) as ended:
        main(f"sample --limit 4 --samples 3 --out {folder} --json".split())
    assert ended.value.code == 0
    return folder / "records.jsonl"


@pytest.mark.parametrize(
    "method",
    [
        ("self-consistency", "--votes", 4),
        pytest.param(("mc", "--kind", "soft"), marks=pytest.mark.slow),
        pytest.param(("omega", "--searches", 3), marks=pytest.mark.slow),
    ],
)
def test_prm_label_writes_the_same_file(ray, prm, sampled, tmp_path, method):
    arguments = ("label", sampled, "--k", 2, "--json", "--method", *method, "--out")
    code, _, err = prm(*arguments, tmp_path / "here")
    on_ray = ("--engine", "ray", "--actors", 2, "--cpus-per-actor", 0.5, "--batch-size", 5)
    assert prm(*arguments, tmp_path / "there", *on_ray)[0] == code, err
    here, there = (tmp_path / name / "records.jsonl" for name in ("here", "there"))
    assert there.read_bytes() == here.read_bytes()
    told, far = (
        json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("here", "there")
    )
    assert far == {k: v for k, v in told.items() if k not in ("rollouts", "tokens")}


@pytest.mark.slow
def test_a_table_in_gives_the_same_table_out(ray, prm, sampled, tmp_path):
    write_records(read_records(sampled), tmp_path / "a.parquet")
    arguments = ("label", tmp_path / "a.parquet", "--k", 2, "--json", "--out")
    code, _, err = prm(*arguments, tmp_path / "here")
    assert code == 0, err
    on_ray = ("--engine", "ray", "--cpus-per-actor", 0.5, "--batch-size", 7)
    assert prm(*arguments, tmp_path / "there", *on_ray)[0] == 0
    here, there = (tmp_path / name / "records.parquet" for name in ("here", "there"))
    assert list(read_records(there)) == list(read_records(here))
    assert len(list(read_records(here))) == 12
    # The actors read the file where it is: nothing was copied.
    assert not (tmp_path / "there" / "parts" / "input").exists()


def test_on_ray_there_is_no_budget(prm, tmp_path):
    code, _, err = prm(
        "label", "x.jsonl", "--engine", "ray", "--budget", 10, "--out", tmp_path / "n"
    )
    assert code == 1
    assert "on Ray nobody keeps the books" in " ".join(err.split())
