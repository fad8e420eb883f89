"""Trainings that are killed again and again end with the bytes of one in peace."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from prmkit.errors import RunFolderError
from prmkit.training.checkpoints import Claim, alone, checkpoints, newest

# Children of a server that has loaded all: they begin at once, so that most kills hit training.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["test_training", "transformers.models.llama.modeling_llama", "transformers.trainer",
     "torch.distributed.checkpoint.state_dict", "accelerate"]
)  # fmt: skip
N_STEPS = 24


def work(base: Path, out: Path, deadly: str | None = None) -> None:
    """A training, from its folder to its last byte.

    Args:
        base: what it starts from.
        out: the model's folder.
        deadly: a call of `os` at which it kills itself, and how many times it comes before.
    """
    import torch
    from test_training import coloured_records

    from prmkit.training.batches import BatchSettings
    from prmkit.training.trainer import TrainSettings, train

    torch.set_num_threads(1)
    if deadly is not None:
        name, _, times = deadly.partition("/")
        kill_at(name, int(times))
    settings = TrainSettings(
        base=str(base), out=out, epochs=N_STEPS / 6, learning_rate=3e-3, save_every=2
    )
    calls = out.parent / "calls"

    def told(done, total, logs):
        if not logs:
            with calls.open("a") as file:
                file.write(f"{done}\n")

    train(coloured_records(24, 3), settings, batches=BatchSettings(batch_size=4), on_progress=told)


def kill_at(name: str, times: int) -> None:
    """Kill this process in the middle of what it does, at a call of `os`."""
    original, left = getattr(os, name), [times]

    def deadly(*arguments, **more):
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return original(*arguments, **more)

    setattr(os, name, deadly)


def lived(base: Path, out: Path, seconds: float, deadly: str | None = None) -> bool:
    """Train in a child that is killed after a while; whether it came to its end."""
    child = CONTEXT.Process(target=work, args=(base, out, deadly))
    child.start()
    child.join(seconds)
    child.kill()
    child.join()
    code = child.exitcode
    child.close()
    assert code in (0, -9)
    return code == 0


def contents(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir()}


@pytest.fixture(scope="module")
def peace(tiny_lm, tmp_path_factory):
    """A run that nobody disturbs: the bytes of its model, and its seconds."""
    folder = tmp_path_factory.mktemp("peace")
    # The server's own start is nobody's life.
    assert lived(tiny_lm, folder / "first" / "prm", 600)
    began = time.perf_counter()
    assert lived(tiny_lm, folder / "prm", 600)
    return contents(folder / "prm"), time.perf_counter() - began


def assert_whole(folder: Path, expected: dict[str, bytes]) -> None:
    """The model of a peaceful run, with nothing beside it and no line twice."""
    assert sorted(f.name for f in folder.iterdir()) == ["calls", "prm"]
    found = contents(folder / "prm")
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name] == expected[name], name
    steps = [json.loads(line)["step"] for line in found["metrics.jsonl"].splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] == N_STEPS


def killing(base: Path, place: Path, peace, kills: int, seed: int) -> None:
    """Kill trainings at random moments until there were so many."""
    expected, seconds = peace
    rng = random.Random(seed)
    killed, runs = 0, [place / "0"]
    while killed < kills:
        runs[-1].mkdir(exist_ok=True)
        if lived(base, runs[-1] / "prm", rng.random() * seconds * rng.choice([0.3, 0.7, 1.1])):
            runs.append(place / str(len(runs)))
        else:
            killed += 1
    if runs[-1].exists():
        assert lived(base, runs[-1] / "prm", 600)
    else:
        runs.pop()
    for run in runs:
        assert_whole(run, expected)


@pytest.mark.slow
def test_a_training_that_is_killed_again_and_again(tiny_lm, tmp_path, peace):
    killing(tiny_lm, tmp_path, peace, 4, 1)


@pytest.mark.slow
def test_fifty_kills(tiny_lm, tmp_path, peace):
    killing(tiny_lm, tmp_path, peace, 50, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "apart"),
    [("rename", 3), ("replace", 1), ("fsync", 3), ("rmdir", 3), ("unlink", 3), ("mkdir", 3)],
)
def test_kills_in_the_middle_of_what_touches_the_disk(tiny_lm, tmp_path, peace, name, apart):
    """Lives of one run, each of which dies at a later call than the one before it."""
    out, times, deaths = tmp_path / "prm", 0, 0
    while not lived(tiny_lm, out, 600, f"{name}/{times}"):
        deaths += 1
        folder = tmp_path / "prm.checkpoints"
        assert newest(folder) is None or (folder / "claim.json").is_file()
        assert len(checkpoints(folder)) <= 3
        times += apart
    assert deaths > 1
    assert_whole(tmp_path, peace[0])


def renames_of(base: Path, place: Path) -> int:
    """How many renames a run makes: the last one begins the removal of its checkpoints."""
    place.mkdir()
    child = CONTEXT.Process(target=counting, args=(base, place / "prm", place / "renames"))
    child.start()
    child.join(600)
    assert child.exitcode == 0
    return (place / "renames").read_text().count("x")


def counting(base: Path, out: Path, noted: Path) -> None:
    original = os.rename

    def counted(*arguments, **more):
        with noted.open("a") as file:
            file.write("x")
        return original(*arguments, **more)

    os.rename = counted
    work(base, out)


def test_what_a_kill_may_leave_is_swept(tiny_lm, tmp_path, peace):
    """Half a model, half a checkpoint, and checkpoints that were on their way out."""
    for left in (".prm.x1.tmp", ".prm.checkpoints.gone/checkpoint-24", "prm.checkpoints/.aside/a"):
        (tmp_path / left).mkdir(parents=True)
        (tmp_path / left / "half").write_text("x")
    shutil.copy(tiny_lm / "config.json", tmp_path / "prm.checkpoints" / ".claim.json.x.tmp")
    assert lived(tiny_lm, tmp_path / "prm", 600)
    assert_whole(tmp_path, peace[0])


def test_a_run_killed_after_its_end_leaves_nothing_for_good(tiny_lm, tmp_path, peace):
    """The model is there, and its checkpoints still are, or are on their way out."""
    out = tmp_path / "prm"
    n = renames_of(tiny_lm, tmp_path / "counted")
    assert not lived(tiny_lm, out, 600, f"rename/{n - 1}")
    assert (tmp_path / "prm.checkpoints").is_dir()
    assert out.is_dir()
    (tmp_path / ".prm.checkpoints.gone").mkdir()
    assert lived(tiny_lm, out, 600)
    shutil.rmtree(tmp_path / "counted")
    assert_whole(tmp_path, peace[0])


def test_a_second_run_leaves_what_the_first_has_begun(tmp_path):
    folder, claim = tmp_path / "m.checkpoints", Claim({"settings": {"seed": "1"}})
    with alone(folder, claim, first=True):
        (folder / "reference.json").write_text("begun")
        with (
            pytest.raises(RunFolderError, match="another process is at work in"),
            alone(folder, claim, first=True),
        ):
            pass
        assert (folder / "reference.json").read_text() == "begun"
        assert (folder / "claim.json").is_file()
    # Nothing was put there for good.
    assert not folder.exists()
