"""Models that judge in words: which critiques are learnt from, what of them, and a toy."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from prmkit.checkpoints import load_tokenizer, start_causal_lm
from prmkit.errors import CheckpointError, InvalidRecord, InvalidSetting, NothingToMeasure
from prmkit.labelling import critiques_of, with_critiques
from prmkit.policies.hf import HFPolicy
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory
from prmkit.scorers.families import GENERATIVE
from prmkit.scorers.families.judge import messages
from prmkit.scorers.families.think_prm import LEAD, QUESTION, STOP
from prmkit.scorers.generative import GenerativeScorer
from prmkit.scorers.loading import load_scorer
from prmkit.scorers.settings import ModelSettings
from prmkit.tiny_checkpoints import tiny_checkpoint
from prmkit.training.batches import BatchSettings
from prmkit.training.critiques import (
    Stretch,
    WritingObjective,
    encode,
    make_critiques,
    stretches,
    verdict,
)
from prmkit.training.loop import part_loss, trainable
from prmkit.training.parts import make_part
from prmkit.training.targets import Dropped
from prmkit.training.trainer import prepare, train
from toys import THINGS, toy_records, toy_settings

JUDGE, THINK = GENERATIVE["judge"], GENERATIVE["think_prm"]
SOLUTION = Trajectory(
    problem=Problem(id="q", prompt="What is 1 + 1?"),
    steps=(Step(text="1 + 1 = 2"), Step(text="2 + 2 = 5"), Step(text="The answer is 5.")),
)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A language model to start from, by family."""
    folder = tmp_path_factory.mktemp("bases")
    return {
        name: tiny_checkpoint(name, folder / name)
        for name in ("judge", "think_prm", "gen_prm", "r_prm")
    }


@pytest.fixture(scope="module")
def base(bases):
    return bases["judge"]


def labelled(values, critiques=None, kind="hard"):
    meta = {} if critiques is None else {"critiques": critiques}
    labels = StepLabels(values=values, kind=kind)
    return Record(trajectory=SOLUTION, labels=labels, meta=meta)


def judge_says(step):
    return f"Let me see. \\boxed{{{step}}}"


def test_only_critiques_that_agree_with_the_labels_are_learnt_from(base):
    tokenizer = load_tokenizer(base)
    said = [judge_says(1), [judge_says(2)], [judge_says(-1)], ["No idea."], [judge_says(7)]]
    wrong = labelled((1, 0, None), said)
    examples, dropped = make_critiques([wrong], JUDGE, tokenizer, None)
    assert dropped == Dropped(disagree=2, unreadable=2)
    # The words, and what is to be answered about paragraphs 0 and 1; nothing is known of 2.
    assert [tokenizer.decode(e.ids[e.positions[0] + 1 :]) for e in examples] == [
        judge_says(1) + tokenizer.eos_token, *(tokenizer.decode(first) for first in
        (tokenizer(" Yes", add_special_tokens=False)["input_ids"][:1],
         tokenizer(" No", add_special_tokens=False)["input_ids"][:1])),
    ]  # fmt: skip
    right = labelled((1, 1, 1), said)
    examples, dropped = make_critiques([right], JUDGE, tokenizer, None)
    assert len(examples) == 1 + 3
    assert dropped == Dropped(disagree=2, unreadable=2)
    # Where nobody knows whether a step before the first wrong one is right, nobody agrees.
    for values in ((None, 0, None), (1, 1, None)):
        _, dropped = make_critiques([labelled(values, said)], JUDGE, tokenizer, None)
        assert dropped == Dropped(unlabelled=1)
    _, dropped = make_critiques([labelled((1, 0, None))], JUDGE, tokenizer, None)
    assert dropped == Dropped(unlabelled=1)
    _, dropped = make_critiques([wrong], JUDGE, tokenizer, 50)
    assert dropped == Dropped(too_long=1, disagree=2, unreadable=2)


def test_thinkprm_is_taught_a_chain_for_each_prefix_up_to_the_first_wrong_step():
    chains = [
        f" It is \\boxed{{correct}}.{STOP[0]}",
        f" Then \\boxed{{incorrect}}.{STOP[1]}",
        " So \\boxed{incorrect}.",
    ]
    found, said = verdict(THINK, SOLUTION, chains)
    assert found == 1
    taught = stretches(THINK, SOLUTION, said, StepLabels(values=(1, 0, None), kind="hard"))
    assert [(s.reply, s.words, s.ends, s.choices) for s in taught] == [
        (LEAD, chains[0], False, ()),
        (f"{LEAD} It is \\boxed{{correct}}.{QUESTION}", " yes", False, (" yes", " no")),
        (LEAD, chains[1], False, ()),
        (f"{LEAD} Then \\boxed{{incorrect}}.{QUESTION}", " no", False, (" yes", " no")),
    ]
    assert "Step 2:" not in taught[0].messages[0].content
    assert "Step 2: 2 + 2 = 5" in taught[2].messages[0].content
    assert verdict(THINK, SOLUTION, chains[:2])[0] == "the critique ends before its verdict"
    assert "goes on for 1 texts" in verdict(THINK, SOLUTION, [*chains, "more"])[0]


def script(prefix, rng):
    """Words that each family's verdict is read from: paragraph 1 is wrong."""
    del rng
    asked = prefix.problem.messages[-1].content
    if "numbered from 0" in asked:
        return judge_says(1)
    if "Review and critique" in asked:
        verdict = "incorrect" if "Step 2:" in asked else "correct"
        return f" Hm. \\boxed{{{verdict}}}\n</think> and more"
    wrong = "Now Step: Step 2:" in asked or asked == "2 + 2 = 5"
    if prefix.text.endswith(("\\boxed{", "(Yes/No)?")):
        return " " * prefix.text.endswith("?") + ("No" if wrong else "Yes")
    return "I look. Verification: Is the step correct (Yes/No)?\n</analyze>"


class Asked(ScriptedPolicy):
    """A scripted policy that chooses too, and keeps what it is asked to choose after."""

    def choose(self, prefixes, choices):
        self.requests += [(prefix, 1) for prefix in prefixes]
        return [[0.1, 0.9] if "2 + 2 = 5" in str(p) else [0.9, 0.1] for p in prefixes]


@pytest.mark.parametrize("name", ["judge", "think_prm", "gen_prm", "r_prm"])
def test_conversations_of_training_are_those_of_scoring(bases, name):
    """Drawn critiques are learnt from, at the very prefixes that the scorer will ask about."""
    family = GENERATIVE[name]
    trajectory = SOLUTION.prefix(2)
    record = Record(trajectory=trajectory, labels=StepLabels(values=(1, 0), kind="hard"))
    (drawn,) = with_critiques([record], ScriptedPolicy(script), family, 2, seed=3)
    assert len(drawn.meta["critiques"]) == 2
    tokenizer = load_tokenizer(bases[name])
    examples, dropped = make_critiques([drawn], family, tokenizer, None)
    assert not any((dropped, dropped.disagree, dropped.unreadable))
    asking = Asked(script)
    GenerativeScorer(asking, family, n_samples=1).score([trajectory])
    policy = HFPolicy(bases[name], device="cpu")
    policy._context = None
    read = sorted({tuple(policy._encode(prefix)) for prefix, _ in asking.requests})
    if name == "judge":
        assert len(read) == 3
    assert sorted(tuple(e.ids[: e.positions[0] + 1]) for e in examples) == read
    for e in examples:
        assert e.positions == list(range(e.positions[0], len(e.ids) - 1))


def test_critiques_say_their_verdict_even_where_a_policy_could_be_asked():
    asked = Asked(script)
    trajectories = [SOLUTION, SOLUTION.prefix(1), SOLUTION]
    found = critiques_of(trajectories, asked, JUDGE, 2)
    assert found == [[[judge_says(1)]] * 2] * 3
    # Equal solutions are judged once.
    assert len(asked.requests) == 4
    more = list(with_critiques([labelled((1, 0, None), ["old"])], asked, JUDGE, 1))
    assert more[0].meta["critiques"] == ["old", [judge_says(1)]]


def test_the_loss_is_that_of_the_replys_tokens_alone(base):
    """Against a stock pass over each row, token by token."""
    tokenizer, aim = load_tokenizer(base), WritingObjective()
    records = [labelled((1, 0, None), [judge_says(1)]), labelled((1, 1, 1), [judge_says(-1)])]
    examples, _ = make_critiques(records, JUDGE, tokenizer, None)
    model = trainable(start_causal_lm(base), aim)
    ours = part_loss(model, make_part(examples, True), aim)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    total, n = 0.0, 0
    for e in examples:
        table = torch.log_softmax(plain(torch.tensor([e.ids])).logits[0], dim=-1)
        first = e.positions[0] + 1
        n += len(e.ids) - first
        total -= sum(table[t - 1, e.ids[t]].item() for t in range(first, len(e.ids)))
    assert ours.item() == pytest.approx(total, rel=1e-4)
    assert aim.items(examples) == n


def test_a_reply_is_tokenised_piece_by_piece_as_the_policy_reads_it(base):
    tokenizer = load_tokenizer(base)
    conversation = messages(SOLUTION)
    ids, n = encode(Stretch(conversation, "", "So. \\boxed{1}", ends=True), tokenizer, 0)
    assert ids[-1] == 0
    assert tokenizer.decode(ids[-n:-1]) == "So. \\boxed{1}"
    with pytest.raises(CheckpointError, match="with the same token"):
        encode(Stretch(conversation, "So?", "Yeah", choices=("Yeah", "Yell")), tokenizer, 0)
    _, n = encode(Stretch(conversation, "So?", " Yes", choices=(" Yes", " No")), tokenizer, 0)
    assert n == 1


@pytest.mark.parametrize(
    ("critiques", "kind", "message"),
    [
        ("text", "hard", "expected a list"),
        ([[1]], "hard", "expected a list"),
        (["a"], "soft", "--threshold"),
        (["a"], "human", "--neutral"),
    ],
)
def test_records_that_say_something_else_are_refused(base, critiques, kind, message):
    with pytest.raises(InvalidRecord, match=message):
        make_critiques([labelled((1, 0, 0), critiques, kind)], JUDGE, load_tokenizer(base), None)


def test_what_cannot_be_learnt_is_refused(base, tmp_path):
    settings = toy_settings(base, tmp_path / "m", kind="generative")
    with pytest.raises(NothingToMeasure, match="1 critiques disagree"):
        prepare([labelled((1, 1, 1), [judge_says(0)])], settings)
    code = toy_settings(base, tmp_path / "m", kind="generative", family="gen_prm_code")
    with pytest.raises(InvalidSetting, match="runs the programs"):
        prepare([labelled((1, 1, 1), [judge_says(0)])], code)


def toy_critic(prefix, rng):
    """Names the first paragraph, or prefix, with the wrong thing; now and then by mistake."""
    del rng
    asked = prefix.problem.messages[-1].content
    wrong = THINGS[0] in asked
    if "numbered from 0" in asked:
        return f"\\boxed{{{0 if wrong else -1}}}"
    return f"\\boxed{{{'incorrect' if wrong else 'correct'}}}</think>"


@pytest.mark.parametrize("name", ["judge", "think_prm"])
def test_a_model_learns_to_judge_in_words(bases, tmp_path, name):
    records = list(
        with_critiques(toy_records(48, steps=1), ScriptedPolicy(toy_critic), GENERATIVE[name], 1)
    )
    settings = toy_settings(bases[name], tmp_path / "m", kind="generative", family=name, epochs=8)
    train(records, settings, batches=BatchSettings(batch_size=8))
    unseen = toy_records(16, seed=9, steps=1)
    scorer = load_scorer(
        tmp_path / "m",
        ModelSettings(model=str(tmp_path / "m"), device="cpu", samples=1, critique_tokens=24),
    )
    scores = scorer.score([r.trajectory for r in unseen])
    for r, scored in zip(unseen, scores, strict=True):
        assert (scored.values[0] > 0.5) == (r.labels.values[0] == 1), scored
