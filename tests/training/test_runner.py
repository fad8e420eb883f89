"""The loop: judged on the way, ended early, its curves whole, its numbers those of a plain pass."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from test_parts import gradients, tree_of_records
from test_training import EIGHT, coloured_records, settings_for

from prmkit.checkpoints import load_tokenizer, start_token_classifier
from prmkit.errors import InvalidSetting
from prmkit.records import StepScores, Unscored
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.scorers.families import discriminative
from prmkit.training.checkpoints import checkpoints
from prmkit.training.kinds import KINDS, objective
from prmkit.training.looks import Looks
from prmkit.training.loop import trainable
from prmkit.training.parts import make_part
from prmkit.training.runner import Progress, progress_of
from prmkit.training.settings import MachineSettings, WatchSettings
from prmkit.training.targets import make_examples
from prmkit.training.trainer import HeldOut, train


def log(*figures):
    entries = [{"step": 10 * i, "loss": 1.0} for i in range(9)]
    return entries + [{"step": i, "eval_f": f} for i, f in enumerate(figures, 1)]


def test_the_best_is_the_first_of_equals_and_patience_counts_from_it():
    assert progress_of(log(), "f", 1) == Progress(None, False)
    assert progress_of(log(0.1, 0.3, 0.3), "f", 2) == Progress(2, False)
    assert progress_of(log(0.1, 0.3, 0.3, 0.2), "f", 2) == Progress(2, True)
    assert progress_of(log(0.1, 0.3, 0.3, 0.4), "f", 2) == Progress(4, False)
    assert progress_of(log(0.1, 0.0, 0.0, 0.0), "f", None) == Progress(1, False)


def test_of_errors_the_lowest_is_the_best():
    found = [{"step": i, "eval_brier": x} for i, x in enumerate((0.3, 0.1, 0.2, 0.1), 1)]
    assert progress_of(found, "brier", 2) == Progress(2, True)


class Scripted:
    """Figures by the clock, whatever the scores are."""

    def __init__(self, *figures):
        self.left, self.seen = list(figures), []

    def __call__(self, records, scored):
        self.seen.append([s.values for s in scored])
        return {"first_error_f1": self.left.pop(0)}


def test_training_ends_early_and_keeps_the_best_weights(tiny_lm, tmp_path):
    records, unseen = coloured_records(96, 1), coloured_records(8, 2)
    judge = Scripted(0.1, 0.6, 0.5, 0.6, 0.2)
    watch = WatchSettings(eval_every=2, patience=3)
    settings = settings_for(tiny_lm, tmp_path / "prm", save_every=1)
    result = train(records, settings, batches=EIGHT, watch=watch, held_out=HeldOut(unseen, judge))
    assert result.best_step == 4
    assert result.figures == {"first_error_f1": 0.6}
    assert len(judge.seen) == 5
    assert result.losses[-1][0] == 10
    scorer = DiscriminativeScorer(tmp_path / "prm", device="cpu")
    for seen, scored in zip(
        judge.seen[1], scorer.score([r.trajectory for r in unseen]), strict=True
    ):
        assert scored.values == pytest.approx(seen, abs=1e-5)


def test_a_run_killed_after_its_best_step_still_keeps_it(tiny_lm, tmp_path):
    """Also where the best checkpoint is older than those that stay anyway; no line comes twice."""
    records, unseen = coloured_records(96, 1), coloured_records(8, 2)
    figures = (0.9, 0.1, 0.2, 0.1, 0.2, 0.1)
    watch = WatchSettings(eval_every=2)

    def go(name, figures, stop=None):
        def told(done, total, logs):
            if done == stop:
                raise KeyboardInterrupt

        settings = settings_for(tiny_lm, tmp_path / name, epochs=1, save_every=3)
        held_out = HeldOut(unseen, Scripted(*figures))
        return train(
            records, settings, batches=EIGHT, watch=watch, held_out=held_out, on_progress=told
        )

    whole = go("whole", figures)
    with pytest.raises(KeyboardInterrupt):
        go("killed", figures, stop=11)
    folder = tmp_path / "killed.checkpoints"
    assert [c.name for c in checkpoints(folder)] == [f"checkpoint-{n}" for n in (2, 6, 9)]
    # What a kill in the middle of a line leaves.
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1')
    again = go("killed", figures[4:])
    assert again._replace(out=whole.out) == whole
    assert whole.best_step == 2
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [e["step"] for e in found if "loss" in e] == list(range(1, 13))
    assert [e["step"] for e in found if "eval_first_error_f1" in e] == list(range(2, 13, 2))


def test_checkpoints_come_as_often_as_is_said_now(tiny_lm, tmp_path):
    """Not as often as the run that is gone on with was told."""
    seen = []

    def go(save_every, stop):
        def told(done, total, logs):
            if not logs:
                seen.append([c.name for c in checkpoints(tmp_path / "prm.checkpoints")])
            if done == stop:
                raise KeyboardInterrupt

        settings = settings_for(tiny_lm, tmp_path / "prm", epochs=1, save_every=save_every)
        train(coloured_records(64, 1), settings, batches=EIGHT, on_progress=told)

    with pytest.raises(KeyboardInterrupt):
        go(2, 3)
    go(1, None)
    # Before steps 4 to 8 are sealed.
    assert [names[-1] for names in seen[-5:]] == [f"checkpoint-{n}" for n in (2, 3, 4, 5, 6, 7)][1:]


@pytest.mark.parametrize("kind", ["step", "outcome"])
def test_looks_score_as_the_scorer_does(tiny_lm, tmp_path, kind):
    records = tree_of_records()
    settings = settings_for(tiny_lm, tmp_path / "prm", kind=kind, epochs=8)
    train(records, settings, batches=EIGHT)
    scorer = DiscriminativeScorer(tmp_path / "prm", device="cpu")
    expected = scorer.score([r.trajectory for r in records])
    tokenizer = load_tokenizer(tiny_lm)
    family = discriminative(KINDS[kind].family)
    aim = objective(kind, family, tokenizer)
    model = trainable(start_token_classifier(tmp_path / "prm", aim.n_outputs).train(), aim)
    for pass_tokens in (1, 100, 4096):
        looks = Looks(records, family, tokenizer, None, lambda *_: {}, pass_tokens)
        for one, other in zip(looks.scores(model), expected, strict=True):
            assert one.values == pytest.approx(other.values, abs=1e-5)
            assert one.semantics == other.semantics
    assert model.training
    limit = max(len(e.ids) for e in make_examples(records, family, tokenizer, None)[0]) - 1
    scored = Looks(records, family, tokenizer, limit, lambda *_: {}, 100).scores(model)
    assert {type(s) for s in scored} == {StepScores, Unscored}


def test_activations_computed_again_give_the_same_gradients(tiny_lm):
    tokenizer = load_tokenizer(tiny_lm)
    family = discriminative("step_end")
    aim = objective("step", family, tokenizer)
    part = make_part(make_examples(tree_of_records(), family, tokenizer, None)[0], True)
    found = []
    for again in (False, True):
        torch.manual_seed(0)
        model = start_token_classifier(tiny_lm, 2).train()
        if again:
            model.activation_checkpointing_enable(
                activation_checkpointing_kwargs={"use_reentrant": False}
            )
        trainable(model, aim)(part).backward()
        found.append(gradients(model))
    for name, value in found[0].items():
        assert (value - found[1][name]).abs().max() <= 1e-6 * value.abs().max(), name


@pytest.mark.parametrize("how", [{"checkpoint_gradients": True}, {"precision": "bfloat16"}])
def test_ways_to_save_memory_learn_the_same(tiny_lm, tmp_path, how):
    records = coloured_records(48, 4)
    machine = MachineSettings(precision=how.get("precision", "auto"))
    of_run = {k: v for k, v in how.items() if k != "precision"}
    plain = train(records, settings_for(tiny_lm, tmp_path / "a", epochs=1), batches=EIGHT)
    saving = train(
        records, settings_for(tiny_lm, tmp_path / "b", epochs=1, **of_run), batches=EIGHT,
        machine=machine,
    )  # fmt: skip
    exact = machine.precision == "auto"
    assert [x for _, x in saving.losses] == pytest.approx(
        [x for _, x in plain.losses], rel=1e-5 if exact else 0.05
    )
    if not exact:
        assert saving.losses != plain.losses


def test_curves_go_where_they_are_wanted_or_it_is_said(caplog, monkeypatch):
    from prmkit.training import settings

    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    with caplog.at_level(logging.INFO):
        assert WatchSettings().curves() == ()
    assert caplog.messages == [
        "no live curves: trackio is not installed; the figures are in a file"
    ]
    with pytest.raises(InvalidSetting, match="pip install wandb"):
        WatchSettings(report_to="wandb").curves()
    assert WatchSettings(report_to="none").curves() == ()
    monkeypatch.setattr(settings, "find_spec", lambda name: name)
    assert WatchSettings().curves() == ("trackio",)
    assert WatchSettings(report_to="tensorboard").curves() == ("tensorboard",)


def test_what_is_watched_goes_together():
    with pytest.raises(InvalidSetting, match="patience has no meaning without eval_every"):
        WatchSettings(patience=2)
    with pytest.raises(InvalidSetting, match="best_by has no meaning without held-out"):
        WatchSettings(best_by="brier").check(False)
    with pytest.raises(InvalidSetting, match="--eval FILE"):
        WatchSettings(eval_every=2).check(False)
