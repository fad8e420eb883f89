"""Implicit PRMs: losses against a slow independent implementation, the kept reference, a toy."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from prmkit.checkpoints import load_tokenizer, read_note, save_model, start_causal_lm
from prmkit.errors import CheckpointError, InvalidSetting, NothingToMeasure, RunFolderError
from prmkit.records import Problem, Record, Step, Trajectory
from prmkit.scorers.backends.log_probs import LogProbs
from prmkit.scorers.families import IMPLICIT
from prmkit.scorers.implicit import ImplicitScorer
from prmkit.scorers.loading import load_scorer
from prmkit.scorers.settings import ModelSettings
from prmkit.training import implicit, log_probs
from prmkit.training.batches import BatchSettings
from prmkit.training.implicit import ImplicitObjective, ImplicitSettings
from prmkit.training.loop import part_loss, trainable
from prmkit.training.objective import Place
from prmkit.training.parts import make_part
from prmkit.training.settings import MachineSettings
from prmkit.training.targets import Dropped, make_responses
from prmkit.training.trainer import prepare, train
from toys import toy_records, toy_settings

FAMILY = IMPLICIT["implicit_prm"]
LOG_RATIO = IMPLICIT["log_ratio"]
BETA = 0.1


@pytest.fixture(scope="module")
def other_lm(tiny_lm, tmp_path_factory):
    """Another model with the same tokenizer."""
    model = start_causal_lm(tiny_lm)
    torch.manual_seed(7)
    for weights in model.parameters():
        weights.data += 0.1 * torch.randn_like(weights)
    folder = tmp_path_factory.mktemp("models") / "other"
    save_model(folder, model, load_tokenizer(tiny_lm), {"family": "none"})
    return folder


def outcome(name, texts, correct):
    steps = tuple(Step(text=f"{t}\n") for t in texts)
    problem = Problem(id=name, prompt=f"{name} has 12 apples?")
    return Record(trajectory=Trajectory(problem=problem, steps=steps, correct=correct))


RECORDS = [
    outcome("Mia", ("12 + 5 = 17", "17 - 9 = 8"), True),
    outcome("Mia", ("12 + 5 = 17", "17 + 9 = 26"), False),
    outcome("Mia", ("12 - 5 = 7",), False),
    outcome("Ben", ("2 * 3 = 6", "6 + 1 = 7"), True),
    outcome("Ben", ("2 + 3 = 5",), False),
    outcome("Ada", ("1 + 1 = 3",), False),
]


def slow_log_prob(model, ids, first):
    """Σ log p of the tokens from number `first` on: one stock pass, softmax of all, one by one."""
    logits = model(torch.tensor([ids])).logits[0]
    table = torch.log_softmax(logits, dim=-1)
    return sum(table[t - 1, ids[t]] for t in range(first, len(ids)))


def slow_loss(policy, reference, loss):
    """The loss in plain Python, from the family's own render."""
    tokenizer = load_tokenizer(reference.name_or_path)
    ratios = []
    for record in RECORDS:
        rendered = LOG_RATIO.render(record.trajectory, tokenizer)
        ids = rendered.ids[: rendered.positions[-1] + 1]
        first = max(rendered.begin, 1)
        with torch.no_grad():
            theirs = slow_log_prob(reference, ids, first)
        ratios.append(slow_log_prob(policy, ids, first) - theirs)
    log_sigmoid = torch.nn.functional.logsigmoid
    if loss == "cross_entropy":
        return -sum(
            log_sigmoid(BETA * ratio if r.trajectory.correct else -BETA * ratio)
            for ratio, r in zip(ratios, RECORDS, strict=True)
        )
    # Mia: 0 over 1 and 2; Ben: 3 over 4; Ada has no right one.
    return -sum(log_sigmoid(BETA * (ratios[i] - ratios[j])) for i, j in ((0, 1), (0, 2), (3, 4)))


def completed(aim, base, folder, model=None, share=True):
    tokenizer = load_tokenizer(base)
    examples, dropped = make_responses(RECORDS, LOG_RATIO, tokenizer, None)
    assert not dropped
    model = model or trainable(start_causal_lm(base), aim)
    place = Place(base, folder, BatchSettings(pass_tokens=60, share=share))
    return aim.complete(examples, model, place), model


@pytest.mark.parametrize("loss", ["cross_entropy", "preference"])
@pytest.mark.parametrize("share", [True, False])
def test_loss_and_gradients_are_those_of_a_slow_implementation(
    tiny_lm, other_lm, tmp_path, monkeypatch, loss, share
):
    monkeypatch.setattr(log_probs, "CHUNK", 5)
    aim = ImplicitObjective(loss, ImplicitSettings(beta=BETA, reference=str(other_lm)))
    examples, model = completed(aim, tiny_lm, tmp_path, share=share)
    ours = part_loss(model, make_part(examples, share), aim)
    ours.backward()
    plain = AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=torch.float32)
    reference = AutoModelForCausalLM.from_pretrained(other_lm, dtype=torch.float32)
    expected = slow_loss(plain, reference, loss)
    expected.backward()
    assert ours.item() == pytest.approx(expected.item(), rel=1e-4)
    for (name, own), other in zip(model.named_parameters(), plain.parameters(), strict=True):
        apart = (own.grad - other.grad).abs().max()
        assert apart <= 2e-4 * other.grad.abs().max() + 1e-6, name
    n_items = {"cross_entropy": 6, "preference": 3}[loss]
    assert aim.items(examples) == n_items


def test_the_question_counts_for_nothing_but_what_follows_it(tiny_lm, tmp_path):
    """With its tokens in the sum the loss is another one."""
    aim = ImplicitObjective("cross_entropy", ImplicitSettings(beta=BETA))
    examples, model = completed(aim, tiny_lm, tmp_path)
    begin = LOG_RATIO.render(RECORDS[0].trajectory, load_tokenizer(tiny_lm)).begin
    assert examples[0].positions[0] == begin - 1
    assert len(examples[0].positions) == len(examples[0].ids) - begin
    assert begin > 3
    model.lm_head.weight.data *= 1.3
    loss = part_loss(model, make_part(examples, True), aim)
    unmasked = [
        e._replace(
            positions=list(range(len(e.ids) - 1)),
            targets=e.targets[:1] * (len(e.ids) - 1),
            weights=[1.0] * (len(e.ids) - 1),
        )
        for e in examples
    ]
    assert part_loss(model, make_part(unmasked, True), aim).item() != pytest.approx(
        loss.item(), rel=1e-3
    )


def test_before_it_learns_a_policy_has_no_log_ratio_to_itself(tiny_lm, tmp_path):
    aim = ImplicitObjective("cross_entropy", ImplicitSettings(beta=BETA))
    examples, model = completed(aim, tiny_lm, tmp_path)
    loss = part_loss(model, make_part(examples, True), aim)
    assert loss.item() == pytest.approx(len(RECORDS) * math.log(2), rel=1e-5)


def test_the_reference_is_asked_once_and_kept(tiny_lm, other_lm, tmp_path, monkeypatch):
    aim = ImplicitObjective("cross_entropy", ImplicitSettings(reference=str(other_lm)))
    fresh, model = completed(aim, tiny_lm, tmp_path)
    # As the scorer's own backend has it.
    rows = [e.ids for e in fresh]
    theirs = LogProbs(other_lm, device="cpu").log_probs(rows, [e.positions[0] + 1 for e in fresh])
    assert [e.reference for e in fresh] == pytest.approx(list(map(math.fsum, theirs)), rel=1e-5)
    (file,) = tmp_path.iterdir()
    assert file.name == "reference-0-of-1.json"
    monkeypatch.setattr(implicit, "_compute", lambda *_: pytest.fail("computed again"))
    again, _ = completed(aim, tiny_lm, tmp_path, model)
    assert again == fresh
    # Another reference's numbers are not taken for this one's, nor those of other data.
    monkeypatch.undo()
    itself, _ = completed(ImplicitObjective("cross_entropy", ImplicitSettings()), tiny_lm, tmp_path)
    assert itself != fresh
    kept = json.loads(file.read_text())
    kept["of"]["examples"] = "other"
    file.write_text(json.dumps(kept | {"log_probs": {}}))
    assert (
        completed(ImplicitObjective("preference", ImplicitSettings()), tiny_lm, tmp_path)[0]
        == itself
    )


def test_processes_share_the_reference_and_each_has_all_of_it(tiny_lm, tmp_path, monkeypatch):
    aim = ImplicitObjective("cross_entropy", ImplicitSettings())
    alone, model = completed(aim, tiny_lm, tmp_path / "alone")
    monkeypatch.setattr(implicit, "_wait", lambda place: None)
    monkeypatch.setattr(implicit, "_device", lambda place: "cpu")
    bare = [e._replace(reference=0.0) for e in alone]
    places = [
        Place(tiny_lm, tmp_path / "two", BatchSettings(pass_tokens=60), rank, 2) for rank in (0, 1)
    ]
    implicit._compute(bare, tiny_lm, model, places[0])
    assert implicit._kept(bare, tiny_lm, places[0]) is None
    assert aim.complete(bare, model, places[1]) == alone
    assert aim.complete(bare, model, places[0]) == alone
    shares = [
        json.loads((tmp_path / "two" / f"reference-{rank}-of-2.json").read_text())["log_probs"]
        for rank in (0, 1)
    ]
    assert all(shares)
    assert not shares[0].keys() & shares[1].keys()


def test_a_reference_with_another_tokenizer_is_refused(tiny_lm, tmp_path):
    from prmkit.tiny_checkpoints import tiny_checkpoint

    stranger = tiny_checkpoint("implicit_prm", tmp_path / "stranger")
    settings = toy_settings(tiny_lm, tmp_path / "m", kind="implicit")
    for reference, why in (
        (stranger, "another tokenizer"),
        (tmp_path / "no/where", "is not a folder"),
    ):
        with pytest.raises(CheckpointError, match=why):
            prepare(RECORDS, settings, ImplicitSettings(reference=str(reference)))


@pytest.mark.parametrize("loss", ["cross_entropy", "preference"])
def test_a_policy_learns_from_outcomes_and_its_log_ratio_scores_steps(tiny_lm, tmp_path, loss):
    records = toy_records(96, outcome=True, steps=1)
    settings = toy_settings(
        tiny_lm, tmp_path / "m", kind="implicit", family="log_ratio", loss=loss, epochs=4
    )
    result = train(records, settings, batches=BatchSettings(batch_size=8))
    assert result.losses[0][1] > result.losses[-1][1]
    note = read_note(tmp_path / "m")
    assert note["loss"] == loss
    assert note["reference"] == str(tiny_lm.resolve())
    assert [p.name for p in tmp_path.iterdir()] == ["m"]
    # The note names the reference, so nobody has to.
    scorer = load_scorer(tmp_path / "m", ModelSettings(model=str(tmp_path / "m"), device="cpu"))
    assert isinstance(scorer, ImplicitScorer)
    unseen = toy_records(40, seed=9, steps=1)
    scores = [s.values[0] for s in scorer.score([r.trajectory for r in unseen])]
    right = [s for s, r in zip(scores, unseen, strict=True) if r.labels.values[0]]
    wrong = [s for s, r in zip(scores, unseen, strict=True) if not r.labels.values[0]]
    assert min(right) > max(wrong)


@pytest.mark.parametrize("loss", ["cross_entropy", "preference"])
def test_how_a_step_is_cut_changes_nothing(tiny_lm, tmp_path, loss):
    """Pairs of a problem are compared, however little goes through the model at once."""
    records = toy_records(24, outcome=True)
    found = {}
    for name, batches in {
        "one": BatchSettings(batch_size=12),
        "each": BatchSettings(batch_size=12, pass_tokens=1),
        "apart": BatchSettings(batch_size=12, share=False),
    }.items():
        settings = toy_settings(tiny_lm, tmp_path / name, kind="implicit", loss=loss, epochs=1)
        found[name] = [x for _, x in train(records, settings, batches=batches).losses]
    assert found["each"] == pytest.approx(found["one"], abs=1e-5)
    assert found["apart"] == pytest.approx(found["one"], abs=1e-5)


def test_a_killed_run_goes_on_from_the_kept_reference(tiny_lm, tmp_path, monkeypatch):
    """To the weights of a run that was not killed; and not with another reference."""
    records = toy_records(48, outcome=True, steps=1)
    settings = toy_settings(tiny_lm, tmp_path / "whole", kind="implicit", epochs=2, save_every=4)
    batches = BatchSettings(batch_size=8)
    train(records, settings, batches=batches)

    def killer(done, total, logs):
        if done == 6:
            raise KeyboardInterrupt

    killed = toy_settings(tiny_lm, tmp_path / "killed", kind="implicit", epochs=2, save_every=4)
    with pytest.raises(KeyboardInterrupt):
        train(records, killed, batches=batches, on_progress=killer)
    with pytest.raises(RunFolderError, match="other settings"):
        train(records, killed, batches=batches, implicit=ImplicitSettings(beta=1.0))
    monkeypatch.setattr(implicit, "_compute", lambda *_: pytest.fail("computed again"))
    train(records, killed, batches=batches)
    whole, again = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed")
    )
    assert whole == again


def interrupted_at(step):
    def told(done, total, logs):
        if done == step:
            raise KeyboardInterrupt

    return told


def test_the_reference_outlives_an_interruption_before_the_first_checkpoint(
    tiny_lm, tmp_path, monkeypatch
):
    """It may have taken hours; the folder goes when the model is there."""
    records = toy_records(24, outcome=True, steps=1)
    settings = toy_settings(tiny_lm, tmp_path / "m", kind="implicit", epochs=1)
    with pytest.raises(KeyboardInterrupt):
        train(records, settings, on_progress=interrupted_at(1))
    # What it belongs to it says itself: other settings may take it.
    monkeypatch.setattr(implicit, "_compute", lambda *_: pytest.fail("computed again"))
    train(records, settings, implicit=ImplicitSettings(beta=0.1))
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_the_reference_is_computed_in_the_precision_of_the_passes(tiny_lm, tmp_path, caplog):
    """So a policy that has not learnt yet has log-ratios of 0; another precision is asked anew."""
    records = toy_records(24, outcome=True, steps=1)
    settings = toy_settings(tiny_lm, tmp_path / "m", kind="implicit", epochs=1)
    far = ImplicitSettings(beta=100.0)
    with pytest.raises(KeyboardInterrupt):
        train(records, settings, on_progress=interrupted_at(1), implicit=far)
    machine = MachineSettings(precision="bfloat16")
    found = train(records, settings, machine=machine, implicit=far)
    assert found.losses[0][1] == pytest.approx(math.log(2), abs=1e-4)
    assert "another precision; computed again" in caplog.text


def test_a_run_goes_on_with_the_same_reference_wherever_it_is(
    tiny_lm, other_lm, tmp_path, monkeypatch
):
    records = toy_records(24, outcome=True, steps=1)
    settings = toy_settings(tiny_lm, tmp_path / "m", kind="implicit", epochs=1, save_every=1)
    for name, source in (("a", other_lm), ("b", other_lm), ("c", tiny_lm)):
        shutil.copytree(source, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    where = {name: ImplicitSettings(reference=name) for name in "abcm"}
    with pytest.raises(KeyboardInterrupt):
        train(records, settings, on_progress=interrupted_at(2), implicit=where["a"])
    with pytest.raises(RunFolderError, match="other settings"):
        train(records, settings, implicit=where["c"])
    train(records, settings, implicit=where["b"])
    # From another folder too.
    assert read_note(tmp_path / "m")["reference"] == str(tmp_path / "b")
    with pytest.raises(RunFolderError, match="starts from or compares with"):
        train(records, settings, implicit=where["m"])


def test_what_cannot_be_learnt_is_refused(tiny_lm, tmp_path):
    settings = toy_settings(tiny_lm, tmp_path / "m", kind="implicit", loss="preference")
    apart = [RECORDS[0], RECORDS[5]]
    with pytest.raises(NothingToMeasure, match="nothing to compare"):
        prepare(apart, settings)
    with pytest.raises(InvalidSetting, match="beta is 0"):
        ImplicitSettings(beta=0)
    with pytest.raises(InvalidSetting, match="mean nothing to the kind step"):
        prepare(toy_records(8), toy_settings(tiny_lm, tmp_path / "m"), ImplicitSettings(beta=1.0))


def test_long_responses_are_left_out_whole_and_labels_stand_in_for_outcomes(tiny_lm):
    tokenizer = load_tokenizer(tiny_lm)
    (_, shorter), _ = make_responses([RECORDS[0], RECORDS[2]], FAMILY, tokenizer, None)
    limit = len(shorter.ids)
    (example,), dropped = make_responses([RECORDS[0], RECORDS[2]], FAMILY, tokenizer, limit)
    assert example == shorter._replace(solution=1)
    assert dropped == Dropped(too_long=1)
    # No outcome: the last labelled step, up to its end.
    for record in toy_records(6, steps=3):
        values = (*record.labels.values[:-1], None)
        cut = record.replace(labels=record.labels.model_copy(update={"values": values}))
        found, dropped = make_responses([cut], FAMILY, tokenizer, None)
        if len(values) == 1:
            assert dropped == Dropped(unlabelled=1)
            continue
        rendered = FAMILY.render(record.trajectory, tokenizer)
        assert found[0].ids == rendered.ids[: rendered.positions[-2] + 1]
        assert set(found[0].targets) == {float(values[-2])}
