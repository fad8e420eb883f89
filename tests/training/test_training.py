"""Training: the loss by hand, its normalisation, and a model that learns and resumes."""

from __future__ import annotations

import math
import random
import shutil

import pytest
import torch

from prmkit.checkpoints import load_tokenizer, read_note, start_token_classifier
from prmkit.errors import InvalidRecord, NothingToMeasure, RunFolderError
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.scorers.families.step_end import STEP_END_FAMILY
from prmkit.training.losses import two_class_cross_entropy
from prmkit.training.targets import make_example, make_examples
from prmkit.training.trainer import TrainSettings, batch_loss, collate, train


def record(text: str, values, kind="hard") -> Record:
    steps = tuple(Step(text=f"{text} {i}\n") for i in range(len(values)))
    trajectory = Trajectory(problem=Problem(id=text, prompt=f"{text}?"), steps=steps)
    return Record(trajectory=trajectory, labels=StepLabels(values=tuple(values), kind=kind))


def test_loss_by_hand():
    """p = 1/2 costs log 2 whatever the target; p = 3/4 costs -log(3/4) for a right step."""
    logits = torch.tensor([[0.0, 0.0], [0.0, math.log(3.0)], [0.0, math.log(3.0)]])
    targets = torch.tensor([0.3, 1.0, 0.5])
    expected = math.log(2) - math.log(3 / 4) + -0.5 * math.log(3 / 4) - 0.5 * math.log(1 / 4)
    assert two_class_cross_entropy(logits, targets).item() == pytest.approx(expected, rel=1e-6)


def test_example_is_rendered_as_the_scorer_renders(tiny_lm):
    tokenizer = load_tokenizer(tiny_lm)
    labelled = record("Mia has 12 apples", [1, None, 0])
    example = make_example(labelled, STEP_END_FAMILY, tokenizer)
    rendered = STEP_END_FAMILY.render(labelled.trajectory, tokenizer)
    assert example.ids == rendered.ids
    assert example.positions == [rendered.positions[0], rendered.positions[2]]
    assert example.targets == [1, 0]


def test_soft_labels_stay_soft(tiny_lm):
    tokenizer = load_tokenizer(tiny_lm)
    example = make_example(record("x", [0.9, 0.25], "soft"), STEP_END_FAMILY, tokenizer)
    assert example.targets == [0.9, 0.25]


def test_what_cannot_be_trained_on_is_named_or_counted(tiny_lm):
    tokenizer = load_tokenizer(tiny_lm)
    with pytest.raises(InvalidRecord, match="--neutral"):
        make_example(record("x", [1, -1], "human"), STEP_END_FAMILY, tokenizer)
    bare = Record(trajectory=record("x", [1]).trajectory)
    with pytest.raises(InvalidRecord, match="has no labels"):
        make_example(bare, STEP_END_FAMILY, tokenizer)
    records = [record("a", [1]), record("b", [None]), record("c" * 200, [1])]
    examples, dropped = make_examples(records, STEP_END_FAMILY, tokenizer, max_tokens=100)
    assert len(examples) == 1
    assert dropped == (1, 1)


def test_loss_does_not_depend_on_how_a_batch_is_cut(tiny_lm):
    """Sums over parts, divided by all labelled steps: 1 batch of 4 equals 4 batches of 1."""
    torch.manual_seed(0)
    model, tokenizer = start_token_classifier(tiny_lm, 2), load_tokenizer(tiny_lm)
    torch.nn.init.normal_(model.score.weight)
    records = [record("a", [1]), record("bb", [0, 1, None, 0.5], "soft"), record("c", [0, 0])]
    examples, _ = make_examples(records, STEP_END_FAMILY, tokenizer, None)
    n_labels = sum(len(e.targets) for e in examples)
    assert n_labels == 6
    whole = batch_loss(model, collate(examples), n_labels)
    parts = sum(batch_loss(model, collate([e]), n_labels) for e in examples)
    assert whole.item() == pytest.approx(parts.item(), rel=1e-5)
    # The scorer's own numbers give the same loss.
    targets = [t for e in examples for t in e.targets]
    scores = []
    for r, e in zip(records, examples, strict=True):
        rendered = STEP_END_FAMILY.render(r.trajectory, tokenizer)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([e.ids])).logits[0]
        scores += [
            torch.softmax(logits[p], -1)[1].item()
            for p, v in zip(rendered.positions, r.labels.values, strict=True)
            if v is not None
        ]
    by_hand = -sum(
        t * math.log(s) + (1 - t) * math.log(1 - s) for t, s in zip(targets, scores, strict=True)
    )
    assert whole.item() == pytest.approx(by_hand / 6, rel=1e-4)


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
            "model": tiny_lm, "out": out, "epochs": 3, "learning_rate": 3e-3,
            "batch_size": 8, "save_every": 10, **changes,
        }
    )  # fmt: skip


def test_a_trained_model_tells_right_from_wrong(tiny_lm, tmp_path):
    told = []
    result = train(
        coloured_records(160, 1),
        settings_for(tiny_lm, tmp_path / "prm"),
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (60, 60)
    assert result.n_examples == 160
    assert result.losses[-1][1] < 0.2 < result.losses[0][1]
    assert read_note(tmp_path / "prm") == {"family": "step_end", "trained_from": "tiny_lm"}
    scorer = DiscriminativeScorer(tmp_path / "prm", device="cpu")
    unseen = coloured_records(40, 2)
    for r, scored in zip(unseen, scorer.score([r.trajectory for r in unseen]), strict=True):
        assert [value > 0.5 for value in scored.values] == [v == 1 for v in r.labels.values]
    assert [p.name for p in tmp_path.iterdir()] == ["prm"]


def test_a_killed_run_resumes_to_the_same_weights(tiny_lm, tmp_path):
    records = coloured_records(96, 3)
    train(records, settings_for(tiny_lm, tmp_path / "whole"))

    def killer(done, total):
        if done == 25:
            raise KeyboardInterrupt

    killed = settings_for(tiny_lm, tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        train(records, killed, on_progress=killer)
    assert not (tmp_path / "killed").exists()
    checkpoints = tmp_path / "killed.checkpoints"
    # A half-written newer checkpoint must not be taken.
    shutil.copytree(checkpoints / "checkpoint-20", checkpoints / "checkpoint-24")
    (checkpoints / "checkpoint-24" / "trainer_state.json").unlink()
    first_step = []
    train(records, killed, on_progress=lambda done, _: first_step.append(done))
    assert first_step[0] == 21
    whole, again = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed")
    )
    assert whole == again


def test_checkpoints_of_another_run_are_refused(tiny_lm, tmp_path):
    records = coloured_records(16, 3)
    with pytest.raises(KeyboardInterrupt):
        train(records, settings_for(tiny_lm, tmp_path / "prm"), on_progress=interrupt)
    with pytest.raises(RunFolderError, match="other settings or data"):
        train(records, settings_for(tiny_lm, tmp_path / "prm", seed=5))


def interrupt(done, total):
    raise KeyboardInterrupt


def test_nothing_to_train_on_is_an_error(tiny_lm, tmp_path):
    with pytest.raises(NothingToMeasure, match="1 have no label"):
        train([record("a", [None])], settings_for(tiny_lm, tmp_path / "prm"))


def test_accumulation_changes_nothing(tiny_lm, tmp_path):
    """8 at a time equals 2 at a time, four times: what a mean of means would not give."""
    records = coloured_records(48, 4)
    for name, batch, accumulate in (("wide", 8, 1), ("narrow", 2, 4)):
        train(
            records,
            settings_for(
                tiny_lm, tmp_path / name, batch_size=batch, accumulate=accumulate, epochs=1
            ),
        )
    wide, narrow = (
        DiscriminativeScorer(tmp_path / name, device="cpu").score([r.trajectory for r in records])
        for name in ("wide", "narrow")
    )
    for a, b in zip(wide, narrow, strict=True):
        assert a.values == pytest.approx(b.values, abs=1e-3)
