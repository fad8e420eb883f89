"""Training: what is trained on, and a model that learns and resumes."""

from __future__ import annotations

import math
import random
import shutil

import pytest

from prmkit.checkpoints import load_tokenizer, read_note
from prmkit.errors import (
    InvalidRecord,
    InvalidSetting,
    NothingToMeasure,
    PrmkitError,
    RunFolderError,
)
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory, Unscored
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.scorers.families.step_end import STEP_END_FAMILY
from prmkit.training.batches import BatchSettings
from prmkit.training.checkpoints import checkpoints, newest
from prmkit.training.targets import Dropped, make_examples
from prmkit.training.trainer import TrainSettings, prepare, train


def record(text: str, values, kind="hard") -> Record:
    steps = tuple(Step(text=f"{text} {i}\n") for i in range(len(values)))
    trajectory = Trajectory(problem=Problem(id=text, prompt=f"{text}?"), steps=steps)
    return Record(trajectory=trajectory, labels=StepLabels(values=tuple(values), kind=kind))


def examples_of(records, tokenizer, max_tokens=None, **how):
    return make_examples(records, STEP_END_FAMILY, tokenizer, max_tokens, **how)


def test_example_is_rendered_as_the_scorer_renders(tiny_lm):
    tokenizer = load_tokenizer(tiny_lm)
    labelled = record("Mia has 12 apples", [1, None, 0])
    (example,), dropped = examples_of([labelled], tokenizer)
    rendered = STEP_END_FAMILY.render(labelled.trajectory, tokenizer)
    assert example.ids == rendered.ids
    assert example.positions == [rendered.positions[0], rendered.positions[2]]
    assert example.targets == [1, 0]
    assert example.weights == [1, 1]
    assert not dropped
    # What comes behind the last label is not computed.
    (shorter,), _ = examples_of([record("Mia has 12 apples", [1, 0, None])], tokenizer)
    assert shorter.ids == rendered.ids[: rendered.positions[1] + 1]


def test_soft_labels_stay_soft(tiny_lm):
    (example,), _ = examples_of([record("x", [0.9, 0.25], "soft")], load_tokenizer(tiny_lm))
    assert example.targets == [0.9, 0.25]


def test_certainty_weighs_labels_if_asked(tiny_lm):
    labels = StepLabels(values=(1, 0, 1), kind="hard", certainty=(0.9, 0.5, None))
    sure = record("x", [1, 0, 1]).replace(labels=labels)
    tokenizer = load_tokenizer(tiny_lm)
    assert examples_of([sure], tokenizer)[0][0].weights == [1, 1, 1]
    assert examples_of([sure], tokenizer, weighting="certainty")[0][0].weights == [0.9, 0.5, 1]


def test_long_solutions_lose_whole_steps_and_that_is_counted(tiny_lm):
    tokenizer = load_tokenizer(tiny_lm)
    long = record("Mia has 12 apples", [1, None, 0, 1])
    rendered = STEP_END_FAMILY.render(long.trajectory, tokenizer)
    (example,), dropped = examples_of([long], tokenizer, rendered.positions[2] + 1)
    assert example.targets == [1, 0]
    assert example.ids == rendered.ids[: rendered.positions[2] + 1]
    assert dropped == Dropped(cut=1, cut_labels=1)
    (example,), dropped = examples_of([long], tokenizer, rendered.positions[2])
    assert (example.targets, dropped) == ([1], Dropped(cut=1, cut_labels=2))
    assert examples_of([long], tokenizer, rendered.positions[0]) == ([], Dropped(too_long=1))


def test_what_cannot_be_trained_on_is_named_or_counted(tiny_lm):
    tokenizer = load_tokenizer(tiny_lm)
    with pytest.raises(InvalidRecord, match="--neutral"):
        examples_of([record("x", [1, -1], "human")], tokenizer)
    with pytest.raises(InvalidRecord, match="three classes are trained on human ratings"):
        examples_of([record("x", [1, 0])], tokenizer, what="ratings")
    bare = Record(trajectory=record("x", [1]).trajectory)
    with pytest.raises(InvalidRecord, match="has no labels"):
        examples_of([bare], tokenizer)
    # Who was to label it could not, and says why: no fault of the file.
    told = bare.replace(scores=(Unscored(reason="two places have one vote each"),))
    records = [record("a", [1]), record("b", [None]), told, record("c" * 200, [1])]
    examples, dropped = examples_of(records, tokenizer, 100)
    assert len(examples) == 1
    assert dropped == Dropped(unlabelled=2, too_long=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "value", "family": "step_end"}, "that is not the kind value"),
        ({"kind": "rank", "loss": "cross_entropy"}, "it takes ranking"),
        ({"family": "qwen_prm"}, "is read and not trained"),
        ({"epochs": 0}, "epochs is 0"),
        ({"warmup": 5}, "it is a share of the steps"),
        ({"max_tokens": 2000}, "max_tokens is 2000, and the model in .* reads 1024"),
    ],
)
def test_what_does_not_go_together_is_refused_before_a_model_is_loaded(tiny_lm, settings, message):
    with pytest.raises(InvalidSetting, match=message):
        prepare([record("a", [1, 0])], TrainSettings(base=str(tiny_lm), **settings))


def test_labels_that_are_all_alike_teach_nothing(tiny_lm):
    with pytest.raises(NothingToMeasure, match="all labels are 1"):
        prepare([record("a", [1, 1])], TrainSettings(base=str(tiny_lm)))


def coloured_records(n: int, seed: int) -> list[Record]:
    """Steps with "apples" are right, steps with "pens" wrong: easy to learn."""
    rng = random.Random(seed)
    records = []
    for i in range(n):
        values = [rng.randint(0, 1) for _ in range(rng.randint(1, 3))]
        steps = tuple(Step(text=f"Mia has 3 {'apples' if v else 'pens'}.\n") for v in values)
        trajectory = Trajectory(problem=Problem(id=str(i), prompt="Mia?"), steps=steps)
        records.append(
            Record(trajectory=trajectory, labels=StepLabels(values=tuple(values), kind="hard"))
        )
    return records


def settings_for(tiny_lm, out, **changes):
    return TrainSettings(
        **{
            "base": str(tiny_lm), "out": out, "epochs": 3, "learning_rate": 3e-3,
            "save_every": 10, **changes,
        }
    )  # fmt: skip


EIGHT = BatchSettings(batch_size=8)


def test_a_trained_model_tells_right_from_wrong(tiny_lm, tmp_path):
    told = []
    result = train(
        coloured_records(160, 1),
        settings_for(tiny_lm, tmp_path / "prm"),
        batches=EIGHT,
        on_progress=lambda done, total, logs: told.append((done, total)),
    )
    assert told[-1] == (60, 60)
    assert result.n_examples == 160
    assert result.losses[-1][1] < 0.2 < result.losses[0][1]
    note = read_note(tmp_path / "prm")
    assert len(note.pop("run")) == 64
    assert note == {
        "family": "step_end", "trained_from": "tiny_lm", "kind": "step", "loss": "cross_entropy",
        "step": 60,
    }  # fmt: skip
    scorer = DiscriminativeScorer(tmp_path / "prm", device="cpu")
    unseen = coloured_records(40, 2)
    for r, scored in zip(unseen, scorer.score([r.trajectory for r in unseen]), strict=True):
        assert [value > 0.5 for value in scored.values] == [v == 1 for v in r.labels.values]
    assert [p.name for p in tmp_path.iterdir()] == ["prm"]


def test_a_killed_run_resumes_to_the_same_weights(tiny_lm, tmp_path):
    records = coloured_records(96, 3)
    train(records, settings_for(tiny_lm, tmp_path / "whole"), batches=EIGHT)

    def killer(done, total, logs):
        if done == 25:
            raise KeyboardInterrupt

    killed = settings_for(tiny_lm, tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        train(records, killed, batches=EIGHT, on_progress=killer)
    assert not (tmp_path / "killed").exists()
    folder = tmp_path / "killed.checkpoints"
    assert [c.name for c in checkpoints(folder)] == ["checkpoint-10", "checkpoint-20"]
    # What a kill in the middle of saving leaves is swept.
    shutil.copytree(folder / "checkpoint-20", folder / ".aside" / "checkpoint-30")
    done = []
    train(records, killed, batches=EIGHT, on_progress=lambda n, *_: done.append(n))
    assert done[0] == 21
    whole, again = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed")
    )
    assert whole == again


def test_a_checkpoint_that_was_changed_is_refused(tiny_lm, tmp_path):
    def killer(done, total, logs):
        if done == 12:
            raise KeyboardInterrupt

    settings = settings_for(tiny_lm, tmp_path / "prm")
    with pytest.raises(KeyboardInterrupt):
        train(coloured_records(48, 3), settings, batches=EIGHT, on_progress=killer)
    folder = tmp_path / "prm.checkpoints"
    found = newest(folder)
    assert found is not None
    assert found.name == "checkpoint-10"
    with (found / "optimizer.pt").open("r+b") as file:
        file.seek(100)
        file.write(b"x")
    with pytest.raises(RunFolderError, match=r"optimizer\.pt is not what it was"):
        train(coloured_records(48, 3), settings, batches=EIGHT)
    (found / "manifest.json").unlink()
    with pytest.raises(RunFolderError, match="has no manifest"):
        newest(folder)


def test_checkpoints_of_another_run_are_refused(tiny_lm, tmp_path):
    records = coloured_records(16, 3)
    saved = {"save_every": 1}
    with pytest.raises(KeyboardInterrupt):
        train(records, settings_for(tiny_lm, tmp_path / "prm"), on_progress=interrupt)
    # Nothing was saved, so there is nothing to belong to anybody.
    assert not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        train(records, settings_for(tiny_lm, tmp_path / "prm", **saved), on_progress=interrupt)
    with pytest.raises(RunFolderError, match="other settings or data"):
        train(records, settings_for(tiny_lm, tmp_path / "prm", seed=5))
    with pytest.raises(RunFolderError, match="different: examples"):
        train(coloured_records(16, 4), settings_for(tiny_lm, tmp_path / "prm"))
    # How often it saves is free.
    train(records, settings_for(tiny_lm, tmp_path / "prm", save_every=3))


def interrupt(done, total, logs):
    if done == 2:
        raise KeyboardInterrupt


def test_a_finished_run_is_not_repeated(tiny_lm, tmp_path):
    records, settings = coloured_records(16, 3), settings_for(tiny_lm, tmp_path / "prm")
    result = train(records, settings)
    before = {f.name: f.stat().st_mtime_ns for f in settings.out.iterdir()}
    told = []
    again = train(records, settings, on_progress=lambda *one: told.append(one))
    assert again == result
    assert told == [(3, 3, {})]
    assert before == {f.name: f.stat().st_mtime_ns for f in settings.out.iterdir()}
    train(records, settings_for(tiny_lm, tmp_path / "prm", seed=5))
    assert before != {f.name: f.stat().st_mtime_ns for f in settings.out.iterdir()}


def test_what_is_not_an_earlier_model_is_not_replaced(tiny_lm, tmp_path):
    """Such as the folder of the data, or the model that the training starts from."""
    records = coloured_records(16, 3)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "labelled.jsonl").write_text("dear to somebody")
    (tmp_path / "file").write_text("")
    for name in ("data", "file"):
        with pytest.raises(RunFolderError, match=f"{name} holds something else"):
            train(records, settings_for(tiny_lm, tmp_path / name))
    (tmp_path / "empty").mkdir()
    first = train(records, settings_for(tiny_lm, tmp_path / "empty"))
    with pytest.raises(RunFolderError, match="is also what the training starts from"):
        train(records, settings_for(first.out, first.out))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "empty", "file"]


def test_weights_that_are_no_numbers_are_not_a_model(tiny_lm, tmp_path, monkeypatch):
    """The loss of the last step tells nothing of what that step does."""

    def spoil(self, model):
        model.score.weight.grad.fill_(float("inf"))
        return math.inf

    monkeypatch.setattr("transformers.Trainer._clip_grad_norm", spoil)
    settings = settings_for(tiny_lm, tmp_path / "prm", epochs=1)
    for _ in range(2):
        with pytest.raises(PrmkitError, match="lower learning rate"):
            train(coloured_records(16, 3), settings)
    assert not (tmp_path / "prm").exists()


def test_nothing_to_train_on_is_an_error(tiny_lm, tmp_path):
    with pytest.raises(NothingToMeasure, match="1 have no label"):
        train([record("a", [None])], settings_for(tiny_lm, tmp_path / "prm"))


def test_how_a_step_is_cut_changes_nothing(tiny_lm, tmp_path):
    """Eight solutions in one pass, or each in its own; shared beginnings or not."""
    records = coloured_records(48, 4)
    ways = {
        "one": BatchSettings(batch_size=8),
        "each": BatchSettings(batch_size=8, pass_tokens=1),
        "apart": BatchSettings(batch_size=8, share=False),
    }
    losses, scores = {}, {}
    for name, batches in ways.items():
        result = train(records, settings_for(tiny_lm, tmp_path / name, epochs=1), batches=batches)
        losses[name] = [loss for _, loss in result.losses]
        scorer = DiscriminativeScorer(tmp_path / name, device="cpu")
        scores[name] = [v for s in scorer.score([r.trajectory for r in records]) for v in s.values]
    for name in ("each", "apart"):
        assert losses[name] == pytest.approx(losses["one"], abs=1e-5)
        assert scores[name] == pytest.approx(scores["one"], abs=1e-3)
