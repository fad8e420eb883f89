"""Texts as trainers hold them, to scores; and where steps end among tokens."""

from __future__ import annotations

import subprocess
import sys

import pytest

from prmkit.checkpoints import load_tokenizer
from prmkit.errors import (
    InvalidRecord,
    MissingTrainer,
    ScoringError,
    UnknownName,
)
from prmkit.records import StepScores, Unscored
from prmkit.rl.bridges.placing import Row, row, token_advantages
from prmkit.rl.bridges.scoring import Scored, StepRewards, of_trainer
from prmkit.rl.placing import places, written
from prmkit.scorers.scripted import ScriptedScorer


def by_length(problem, steps):
    """A step's score is a hundredth of its length, and 'long' has none."""
    return None if "long" in steps[-1] else len(steps[-1]) / 100


class Watched(ScriptedScorer):
    """Keeps the trajectories that it was asked about."""

    def score(self, trajectories):
        self.asked = list(trajectories)
        return super().score(trajectories)


@pytest.fixture
def scorer():
    return Watched(by_length)


def test_texts_are_cut_scored_and_made_one_number(scorer):
    rewards = StepRewards(scorer=scorer, how="sum", split="line")
    (one, two) = rewards.score(["q", "r"], ["ab\ncde\n", "f"])
    assert one.steps == ("ab\n", "cde\n")
    assert one.values == (0.03, 0.04)
    assert one.reward == pytest.approx(0.07)
    assert (two.steps, two.reward) == (("f",), 0.01)
    assert [t.problem.text for t in scorer.asked] == ["q", "r"]


def test_conversations_keep_their_roles_and_what_tools_answered(scorer):
    rewards = StepRewards(scorer=scorer, how="last", split="line")
    prompt = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "two "}, {"type": "text", "text": "parts"}],
        },
    ]
    call = {"function": {"name": "add", "arguments": {"a": 1}}}
    said = [
        {"role": "assistant", "content": "x\ny\n", "tool_calls": [call]},
        {"role": "tool", "content": "2"},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "z"},
    ]
    (one,) = rewards.score([prompt], [said])
    (asked,) = scorer.asked
    assert [(m.role, m.content) for m in asked.problem.messages] == [
        ("system", "Be brief."),
        ("user", "two parts"),
    ]
    assert [s.observation for s in asked.steps] == [None, None, "2\n3", None]
    assert [s.text for s in asked.steps] == [
        "x\n",
        "y\n",
        '[{"function": {"name": "add", "arguments": {"a": 1}}}]',
        "z",
    ]
    assert one.reward == 0.01


@pytest.mark.parametrize(
    ("prompt", "completion", "reason"),
    [
        ("q", "", "no step"),
        ("q", " \n\n ", "no step"),
        ("q", "long", "the script gives no score"),
        ("q", "half \ud800", "surrogate"),
        ("q", [{"role": "tool", "content": "2"}], "not the assistant's"),
        ([{"role": "user", "content": [{"type": "image"}]}], "a", "part of type 'image'"),
    ],
)
def test_what_cannot_be_scored_says_why_and_leaves_the_others_alone(
    scorer, prompt, completion, reason
):
    rewards = StepRewards(scorer=scorer, how="min")
    before, one, after = rewards.score(["q", prompt, "q"], ["ab", completion, "abc"])
    assert isinstance(one.scores, Unscored)
    assert reason in one.scores.reason
    assert (one.reward, one.values) == (None, ())
    assert (before.reward, after.reward) == (0.02, 0.03)
    assert one.reward_or(-1.0) == -1.0
    assert after.reward_or(-1.0) == 0.03
    with pytest.raises(ScoringError, match=r"was not scored: .*unscored=…"):
        one.reward_or(None)


def test_the_question_is_found_in_what_a_template_wrote(scorer):
    rewards = StepRewards(scorer=scorer, how="min", before="<|user|>", after="<|end|><|bot|>")
    rewards.score(["sys<|user|>what<|end|>ever<|end|><|bot|>"], ["a"])
    assert scorer.asked[0].problem.prompt == "what<|end|>ever"
    for wrong in ("what", "<|user|>what", "what<|end|><|bot|>", "<|end|><|bot|><|user|>"):
        with pytest.raises(ScoringError, match="does not hold its question between"):
            rewards.score([wrong], ["a"])


def test_numbers_that_do_not_match_are_told_with_both(scorer):
    rewards = StepRewards(scorer=scorer, how="min")
    with pytest.raises(ScoringError, match="2 prompts for 1 completions"):
        rewards.score(["q", "q"], ["a"])

    class Short(ScriptedScorer):
        def score(self, trajectories):
            return super().score(trajectories)[1:]

    class Fewer(ScriptedScorer):
        def score(self, trajectories):
            return [StepScores(values=(0.5,), semantics="value", model="f") for _ in trajectories]

    with pytest.raises(ScoringError, match="scripted gave 2 results for 3 completions"):
        StepRewards(scorer=Short(by_length), how="min").score(["q"] * 3, ["a"] * 3)
    with pytest.raises(ScoringError, match="scripted gave 1 scores for 2 steps"):
        StepRewards(scorer=Fewer(by_length), how="min").score(["q"], ["a\n\nb"])


def test_settings_are_checked_before_anything_is_scored(scorer):
    with pytest.raises(UnknownName, match="no aggregation is called 'minimum'"):
        StepRewards(scorer=scorer, how="minimum")
    with pytest.raises(UnknownName, match="no splitter is called 'lines'"):
        StepRewards(scorer=scorer, how="min", split="lines")


class Pieces:
    """A tokenizer of UTF-8 pieces: token i is the i-th piece; the empty one is special."""

    def __init__(self, *pieces):
        self.pieces = pieces

    def decode(self, ids, **settings):
        assert settings == {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        return b"".join(self.pieces[i] for i in ids).decode(errors="replace")


@pytest.mark.parametrize(
    ("pieces", "steps", "expected"),
    [
        # One token each; the end of text belongs to the last step.
        ((b"a\n", b"b", b""), ("a\n", "b"), (0, 2)),
        # A token across the border ends the first step.
        ((b"a", b"\nb", b"c"), ("a\n", "bc"), (1, 2)),
        # Two steps that end within one token.
        ((b"x", b"a\nb\n", b"c"), ("xa\n", "b\n", "c"), (1, 1, 2)),
        # A character of three tokens ends with the last of them.
        ((b"\xe2", b"\x82", b"\xac", b"b"), ("€", "b"), (2, 3)),
        # Special tokens before and between.
        ((b"", b"a\n", b"", b"b"), ("a\n", "b"), (1, 3)),
        ((b"abc",), ("abc",), (0,)),
        ((b"a",), (), ()),
    ],
)
def test_steps_end_with_the_token_after_which_their_text_is_there(pieces, steps, expected):
    tokenizer = Pieces(*pieces)
    ids = range(len(pieces))
    if not steps:
        tokenizer = Pieces(b"")
    assert places(tokenizer, ids, steps) == expected


def test_steps_that_are_not_the_tokens_text_are_refused():
    with pytest.raises(InvalidRecord, match=r"from character 1 on they are 'c', .* are 'b'"):
        places(Pieces(b"a", b"b"), range(2), ["a", "c"])
    with pytest.raises(InvalidRecord, match=r"from character 2 on they are '', .* are 'c'"):
        places(Pieces(b"a", b"bc"), range(2), ["a", "b"])


def test_places_with_a_real_tokenizer_are_those_of_a_scan(tiny_lm):
    tokenizer = load_tokenizer(tiny_lm)
    text = "So Luis has 7 + 9 = 16 cards.\n\nNow Luis has 8 cards.\nThe answer is 8.\n"
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert written(tokenizer, ids) == text
    steps = text.splitlines(keepends=True)
    expected, begin = [], 0
    for step in steps[:-1]:
        begin += len(step)
        expected.append(
            next(
                t
                for t in range(len(ids))
                if len(tokenizer.decode(ids[: t + 1], skip_special_tokens=True)) >= begin
            )
        )
    assert places(tokenizer, ids, steps) == (*expected, len(ids) - 1)


def test_rows_of_the_unscored_have_no_step():
    scores = StepScores(values=(0.1, 0.2), semantics="value", model="m")
    tokenizer = Pieces(b"a\n", b"b")
    assert row(tokenizer, [0, 1], Scored(("a\n", "b"), scores, 0.1)) == Row((0.1, 0.2), (0, 1), 2)
    unscored = Scored(("a\n", "b"), Unscored(reason="r"), None)
    assert row(tokenizer, [0, 1], unscored) == Row((), (), 2)


ROWS = [Row((1.0, 3.0), (0, 2), 3), Row((), (), 2), Row((5.0,), (3,), 4)]


def test_advantages_are_asked_of_padded_tensors():
    import torch

    def asked(values, ends, group, mask):
        assert values.tolist() == [[1, 3], [0, 0], [5, 0]]
        assert ends.tolist() == [[0, 2], [-1, -1], [3, -1]]
        assert group.tolist() == [0, 0, 7]
        assert mask.sum(1).tolist() == [3, 2, 4]
        return torch.ones(mask.shape)

    found = token_advantages(ROWS, [0, 0, 7], asked)
    # What a function says of tokens that are not there is dropped.
    assert found.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1]]


def test_advantages_of_another_shape_or_not_finite_are_refused():
    with pytest.raises(ScoringError, match=r"have shape \(3, 2\).* it is \(3, 4\)"):
        token_advantages(ROWS, [0, 0, 0], lambda values, ends, group, mask: values)
    with pytest.raises(ScoringError, match="not finite"):
        token_advantages(ROWS, [0, 0, 0], lambda values, ends, group, mask: mask / 0)


def test_by_default_steps_are_compared_with_all_of_their_group():
    """GRPO with process supervision, arXiv:2402.03300 section 4.1.3, by hand."""
    rows = [Row((1.0, 2.0), (0, 2), 3), Row((3.0,), (1,), 2), Row((9.0,), (0,), 1), Row((), (), 2)]
    found = token_advantages(rows, [4, 4, 5, 4])
    # Mean 2 and deviation 1 in the group of 4; the group of 5 has nothing to compare.
    expected = [[-1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert found.tolist() == [[pytest.approx(v, abs=1e-3) for v in line] for line in expected]


def test_a_trainer_that_is_absent_is_named_with_its_install_command():
    with pytest.raises(MissingTrainer, match=r"pip install 'nowhere>=1'") as caught:
        of_trainer("nowhere_at_all.inner", "nowhere>=1")
    assert isinstance(caught.value, ImportError)
    assert "prmkit[" not in str(caught.value)


def test_what_a_trainer_lacks_itself_is_not_called_a_missing_trainer(tmp_path, monkeypatch):
    (tmp_path / "half_there.py").write_text("import nowhere_at_all\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all"):
        of_trainer("half_there", "half")


def test_no_bridge_imports_a_trainer_or_torch():
    code = (
        "import sys\n"
        "from prmkit.rl.bridges import openrlhf, placing, prime_rl, scoring, trl, verl\n"
        "heavy = {'torch', 'transformers', 'httpx2', 'verl', 'ray', 'accelerate', 'prime_rl'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert sys.modules.get('trl') is None and sys.modules.get('openrlhf') is None\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
