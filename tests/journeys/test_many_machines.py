"""A Ray cluster of several nodes on this machine: nodes die, drivers die, the output stays."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from prmkit.engines import EngineSettings
from ray_workers import StartMarking, StartTelling, records

pytestmark = pytest.mark.slow

HERE = Path(__file__).parents[1]


@pytest.fixture
def cluster(monkeypatch):
    """A head that runs no actor, and three nodes of one core."""
    from ray.cluster_utils import Cluster

    paths = [str(HERE), *(p for p in sys.path if p)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    small = {"object_store_memory": 80_000_000, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    # Ray takes the word of a node for its GPUs.
    nodes = [
        made.add_node(num_cpus=1, num_gpus=2, object_store_memory=80_000_000) for _ in range(3)
    ]
    yield made, nodes
    made.shutdown()


@pytest.fixture
def marks(tmp_path):
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


def run(cluster, given, make, folder, size, actors=3):
    from prmkit.on_ray import run_on_ray

    settings = EngineSettings(engine="ray", address=cluster.address, actors=actors)
    done = run_on_ray(given, make, folder, settings, batch_size=size, about={})
    return [record.model_dump_json() for record in done]


def here(given, make, size):
    worker = make()
    done = [r for at in range(0, len(given), size) for r in worker(given[at : at + size])]
    return [record.model_dump_json() for record in done]


def computed(marks):
    """First row of a batch, and the node that did it, for each time that one was done."""
    return [tuple(m.name.split("-")[:2]) for m in marks.iterdir()]


def wait_for(n, marks):
    end = time.monotonic() + 120
    while len(list(marks.iterdir())) < n:
        assert time.monotonic() < end, "nothing was computed in two minutes"
        time.sleep(0.05)


def test_the_output_does_not_depend_on_batches_or_actors(cluster, tmp_path, marks):
    given = records(60)
    for size, actors in [(1, 3), (7, 2), (16, 1), (60, 3)]:
        expected = here(given, StartMarking(marks), size)
        got = run(cluster[0], given, StartMarking(marks), tmp_path / f"parts-{size}", size, actors)
        assert got == expected, size
    labels = {line.partition('"labels"')[2] for line in expected}
    assert len(labels) > 3
    assert len({where for _, where in computed(marks)} - {"here"}) == 3


def test_an_actor_has_the_gpus_that_it_is_given(cluster, tmp_path):
    from prmkit.on_ray import run_on_ray

    def where(actors, gpus):
        settings = EngineSettings(
            engine="ray",
            address=cluster[0].address,
            actors=actors,
            gpus_per_actor=gpus,
            cpus_per_actor=0.1,
        )
        done = run_on_ray(
            records(24), StartTelling(), tmp_path / f"{actors}", settings, batch_size=1, about={}
        )
        return {tuple(record.meta["where"]) for record in done}

    whole = where(3, 2)
    assert {gpus for _, gpus in whole} == {"0,1"}
    assert len(whole) == 3
    halves = where(12, 0.5)
    assert {gpus for _, gpus in halves} == {"0", "1"}
    assert {gpus for _, gpus in where(2, 0)} == {""}


def test_a_node_killed_in_mid_run_loses_nothing(cluster, tmp_path, marks):
    made, nodes = cluster
    given, killed = records(60), []

    def kill():
        wait_for(5, marks)
        busy = {where for _, where in computed(marks)}
        victim = next(node for node in nodes if node.node_id in busy)
        killed.append(victim.node_id)
        made.remove_node(victim, allow_graceful=False)

    thread = threading.Thread(target=kill)
    thread.start()
    got = run(made, given, StartMarking(marks, seconds=0.7), tmp_path / "parts", 2)
    thread.join()
    done = computed(marks)
    assert killed
    assert killed[0] in {where for _, where in done}
    # What was finished is not done again: at most the batch that the node had in hand is.
    assert {int(row) for row, _ in done} == set(range(0, 60, 2))
    assert len(done) <= 31
    assert got == here(given, StartMarking(marks), 2)


DRIVER = """
import sys
from pathlib import Path
from prmkit.engines import EngineSettings
from prmkit.on_ray import run_on_ray
from ray_workers import StartMarking, StartTelling, records

address, marks, folder, out, seconds = sys.argv[1:]
settings = EngineSettings(
    engine="ray", actors=2, **({"address": address} if address else {"cpus_per_actor": 0.5})
)
done = run_on_ray(
    iter(records(40)), StartMarking(Path(marks), float(seconds)), Path(folder), settings,
    batch_size=2, about={},
)
Path(out).write_text("".join(r.model_dump_json() + "\\n" for r in done))
"""


def drive(address, marks, tmp_path, seconds=0.5):
    arguments = [address, marks, tmp_path / "parts", tmp_path / "out.jsonl", seconds]
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", DRIVER, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_driver_goes_on_where_it_was(cluster, tmp_path, marks):
    first = drive(cluster[0].address, marks, tmp_path)
    wait_for(5, marks)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    finished = {int(file.stem) for file in (tmp_path / "parts" / "done").glob("*/*.parquet")}
    assert 4 <= len(finished) < 20
    assert not (tmp_path / "out.jsonl").exists()
    # Actors of a dead driver are ended by Ray; what they still finish counts.
    time.sleep(3)
    finished = {int(file.stem) for file in (tmp_path / "parts" / "done").glob("*/*.parquet")}
    before = computed(marks)
    again = drive(cluster[0].address, marks, tmp_path)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    new = computed(marks)
    for mark in before:
        new.remove(mark)
    assert {int(row) // 2 for row, _ in new} == set(range(20)) - finished
    expected = "".join(line + "\n" for line in here(records(40), StartMarking(marks), 2))
    assert (tmp_path / "out.jsonl").read_text() == expected


def test_ctrl_c_ends_it_and_its_processes(tmp_path, marks, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *(p for p in sys.path if p)]))
    driver = drive("", marks, tmp_path)
    wait_for(2, marks)
    driver.send_signal(signal.SIGINT)
    _, err = driver.communicate(timeout=60)
    assert driver.returncode != 0
    assert err.splitlines()[-1] == "KeyboardInterrupt"
    # Nothing was printed besides what Python says.
    assert "raylet" not in err
    count = len(list(marks.iterdir()))
    time.sleep(3)
    assert len(list(marks.iterdir())) == count
    driver = drive("", marks, tmp_path, seconds=0)
    out, err = driver.communicate(timeout=120)
    assert (driver.returncode, out, err) == (0, "", "")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 40
