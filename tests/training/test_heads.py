"""Models that are read by a head: each kind learns, and its folder is what anyone can load."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from transformers import (
    AutoModelForCausalLM,
    AutoModelForTokenClassification,
    LlamaConfig,
    LlamaForCausalLM,
)

from prmkit.checkpoints import load_tokenizer, read_note, save_model, start_causal_lm
from prmkit.errors import InvalidSetting, NothingToMeasure
from prmkit.records import Record
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.scorers.families import DISCRIMINATIVE, discriminative
from prmkit.scorers.loading import load_scorer
from prmkit.scorers.separators import guard
from prmkit.scorers.settings import ModelSettings
from prmkit.tiny_checkpoints import tiny_checkpoint
from prmkit.training.batches import BatchSettings
from prmkit.training.heads import HeadObjective
from prmkit.training.kinds import KINDS, objective
from prmkit.training.loop import part_loss, trainable
from prmkit.training.parts import make_part
from prmkit.training.targets import make_examples
from prmkit.training.trainer import prepare, train
from toys import toy_records, toy_settings

EIGHT = BatchSettings(batch_size=8)


@pytest.fixture(scope="module")
def bases(tmp_path_factory, tiny_lm):
    """A language model to start from, by family; those of prmkit's own have the same."""
    made = {}

    def base(family):
        if family not in made:
            own = family.startswith(("step_", "outcome"))
            folder = tmp_path_factory.mktemp(family)
            made[family] = tiny_lm if own else tiny_checkpoint(family, folder)
        return made[family]

    return base


def plain_scores(folder, family, tokenizer, trajectories):
    """What the published class gives, read by the family; no code of ours runs the model."""
    of_tokens = bool(getattr(family.head, "tokens", ()))
    auto = AutoModelForCausalLM if of_tokens else AutoModelForTokenClassification
    model = auto.from_pretrained(folder, dtype=torch.float32).eval()
    columns = slice(None)
    if of_tokens:
        vocabulary = tokenizer.get_vocab()
        spelled = [[w, w.replace(" ", "Ġ"), w.replace(" ", "▁")] for w in family.head.tokens]
        columns = [next(vocabulary[w] for w in ways if w in vocabulary) for ways in spelled]
    found = []
    for trajectory in trajectories:
        rendered = guard(trajectory, family, tokenizer, "escape").rendered
        rows = []
        for i, position in enumerate(rendered.positions):
            ids = rendered.ids[: position + 1] + list(rendered.ends[i] if rendered.ends else ())
            with torch.no_grad():
                rows.append(model(torch.tensor([ids])).logits[0, -1, columns].tolist())
        found.append(family.read(rows))
    return found


LEARNT = [
    ("step", "step_end", {}),
    ("step", "trl", {"loss": "squared_error"}),
    ("value", "step_value", {}),
    ("value", "step_value", {"loss": "squared_error"}),
    ("value", "step_value", {"loss": "progress"}),
    ("value", "turn_value", {}),
    ("value", "turn_state", {}),
    ("rank", "step_rank", {}),
    ("pairs", "step_rank", {}),
    ("classes", "step_classes", {}),
    ("tokens", "math_shepherd", {}),
    ("tokens", "rlhflow", {}),
    ("tokens", "versa_prm", {"loss": "squared_error"}),
    ("outcome", "outcome_probability", {}),
    ("outcome_tokens", "step_value", {"epochs": 10}),
    ("outcome_tokens", "step_value", {"loss": "cross_entropy"}),
]


@pytest.mark.parametrize(("kind", "family", "how"), LEARNT)
def test_every_kind_learns_and_is_scored_as_it_was_taught(bases, tmp_path, kind, family, how):
    human = "human" if kind == "classes" else "hard"
    outcome = kind.startswith("outcome")
    made = {"kind": human, "steps": 1 if outcome else 4 if kind == "rank" else 2}
    records = toy_records(96, outcome=outcome, **made)
    settings = toy_settings(bases(family), tmp_path / "m", kind=kind, family=family, **how)
    train(records, settings, batches=EIGHT)
    note = read_note(tmp_path / "m")
    assert (note["family"], note["kind"]) == (family, kind)
    scorer = load_scorer(tmp_path / "m", ModelSettings(model=str(tmp_path / "m"), device="cpu"))
    unseen = toy_records(40, seed=9, **made)
    trajectories = [r.trajectory for r in unseen]
    scores = [s.values for s in scorer.score(trajectories)]
    pairs = [
        (value, score)
        for r, values in zip(unseen, scores, strict=True)
        for value, score in zip(r.labels.values, values, strict=True)
    ]
    right = [score for value, score in pairs if value == 1]
    wrong = [score for value, score in pairs if value < (0 if kind == "classes" else 1)]
    if kind == "rank":
        # What is compared is the steps of one solution.
        for r, values in zip(unseen, scores, strict=True):
            good = [s for v, s in zip(r.labels.values, values, strict=True) if v]
            bad = [s for v, s in zip(r.labels.values, values, strict=True) if not v]
            assert min(good, default=1) > max(bad, default=0)
    else:
        assert min(right) > max(wrong)
    if kind not in ("rank", "pairs"):
        assert min(right) > 0.5 > max(wrong)
    if kind == "classes":
        assert min(score for value, score in pairs if value == 0) > 0.5
    tokenizer = load_tokenizer(tmp_path / "m")
    plain = plain_scores(tmp_path / "m", discriminative(family), tokenizer, trajectories[:8])
    for ours, theirs in zip(scores, plain, strict=False):
        assert ours == pytest.approx(theirs, abs=1e-5)


def test_a_model_with_tied_embeddings_learns_two_of_its_tokens(tmp_path):
    """And is saved and scored with one matrix for both."""
    tokenizer = load_tokenizer(tiny_checkpoint("math_shepherd", tmp_path / "base"))
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, intermediate_size=48,
        num_attention_heads=2, num_key_value_heads=1, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=2, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    save_model(tmp_path / "tied", LlamaForCausalLM(config), tokenizer, {"family": "none"})
    settings = toy_settings(tmp_path / "tied", tmp_path / "m", kind="tokens")
    train(toy_records(96), settings, batches=EIGHT)
    with safe_open(tmp_path / "m" / "model.safetensors", "pt") as saved:
        assert "lm_head.weight" not in saved.keys()  # noqa: SIM118 - not a mapping
    trajectories = [r.trajectory for r in toy_records(8, seed=9)]
    scores = [
        s.values for s in DiscriminativeScorer(tmp_path / "m", device="cpu").score(trajectories)
    ]
    plain = plain_scores(tmp_path / "m", discriminative("math_shepherd"), tokenizer, trajectories)
    for ours, theirs, r in zip(scores, plain, toy_records(8, seed=9), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
        assert [value > 0.5 for value in ours] == [v == 1 for v in r.labels.values]


@pytest.mark.parametrize("family", ["math_shepherd", "rlhflow", "med_prm"])
def test_of_the_output_matrix_only_two_rows_are_used_at_labelled_steps(
    tmp_path, monkeypatch, family
):
    base = tiny_checkpoint(family, tmp_path / "base")
    tokenizer, read_by = load_tokenizer(base), discriminative(family)
    aim = objective("tokens", read_by, tokenizer)
    examples, _ = make_examples(toy_records(8), read_by, tokenizer, None)
    n_labels = sum(len(e.targets) for e in examples)
    model = trainable(start_causal_lm(base).train(), aim)
    monkeypatch.setattr(model.lm_head, "forward", lambda *_: pytest.fail("all logits computed"))
    seen = []
    numbers_of = HeadObjective.of_numbers
    monkeypatch.setattr(
        HeadObjective,
        "of_numbers",
        lambda self, numbers, *rest: seen.append(numbers.shape) or numbers_of(self, numbers, *rest),
    )
    part_loss(model, make_part(examples, True), aim).backward()
    assert seen == [(n_labels, 2)]
    touched = model.lm_head.weight.grad.abs().sum(dim=1).nonzero().squeeze(1).tolist()
    assert touched == sorted(aim.tokens)


def test_the_token_that_means_right_is_the_one_that_the_family_reads_so(tmp_path):
    """Math-Shepherd names "+" first, VersaPRM "-"."""
    for family, right in (("math_shepherd", 0), ("versa_prm", 1)):
        base = tiny_checkpoint(family, tmp_path / family)
        aim = objective("tokens", discriminative(family), load_tokenizer(base))
        assert isinstance(aim, HeadObjective)
        assert aim.right == right
        assert discriminative(family).head.tokens[right].strip() == "+"


def test_pairs_need_alternatives_of_the_same_prefix(tiny_lm, tmp_path):
    """Two problems, one right and one wrong: nothing to compare."""
    right, wrong = (
        Record(
            trajectory=r.trajectory.model_copy(
                update={"problem": r.trajectory.problem.model_copy(update={"prompt": name})}
            ),
            labels=r.labels,
        )
        for name, r in zip(
            "ab",
            sorted(toy_records(20, steps=1), key=lambda r: r.labels.values)[::19],
            strict=True,
        )
    )
    with pytest.raises(NothingToMeasure, match="nothing to compare"):
        prepare([right, wrong], toy_settings(tiny_lm, tmp_path / "m", kind="pairs"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "rank", "weighting": "certainty"}, "weighting certainty means nothing"),
        ({"kind": "step", "family": "implicit_prm"}, "is not trained as the kind step"),
        ({"kind": "tokens", "family": "step_end"}, "that is not the kind tokens"),
        ({"kind": "implicit", "family": "likelihood"}, "has no reference"),
        ({"kind": "implicit", "loss": "ranking"}, "it takes cross_entropy, preference"),
        ({"kind": "generative", "family": "step_end"}, "that takes judge, think_prm"),
    ],
)
def test_what_does_not_go_together_is_refused(tiny_lm, tmp_path, settings, message):
    with pytest.raises(InvalidSetting, match=message):
        prepare(toy_records(8), toy_settings(tiny_lm, tmp_path / "m", **settings))


def test_every_kind_has_a_family_that_it_can_be_trained_by(bases):
    for name, kind in KINDS.items():
        assert kind.family in kind.families
        if kind.families is DISCRIMINATIVE:
            tokenizer = load_tokenizer(bases(kind.family))
            for loss in kind.losses:
                assert objective(name, discriminative(kind.family), tokenizer, loss).loss == loss
