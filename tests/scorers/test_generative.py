"""Judges in words, with a policy whose words are written here."""

from __future__ import annotations

import pytest

from prmkit.errors import InputTooLong, ScoringError
from prmkit.policies.base import Chooser, failed
from prmkit.policies.hf import HFPolicy
from prmkit.policies.scripted import ScriptedPolicy
from prmkit.records import Problem, Step, StepScores, Trajectory, Unscored
from prmkit.scorers.families import GENERATIVE
from prmkit.scorers.generative import GenerativeScorer
from prmkit.testing import tiny_checkpoint

SOLUTION = Trajectory(
    problem=Problem(id="q", prompt="What is 1 + 1?"),
    steps=(Step(text="1 + 1 = 2"), Step(text="2 + 2 = 5"), Step(text="The answer is 5.")),
)


class Choosing(ScriptedPolicy):
    """A scripted policy whose choices are written too."""

    def __init__(self, script, choose):
        super().__init__(script)
        self._choose = choose
        self.asked = []

    def choose(self, prefixes, choices):
        self.asked += [(prefix, tuple(choices)) for prefix in prefixes]
        return [[p, 1 - p] for p in map(self._choose, prefixes)]


def reply_of(prefix):
    return prefix.text


def test_a_judge_without_logits_is_a_share_of_critiques():
    """Three of four critiques name paragraph 1, one finds nothing: 1, 1/4, 1/4."""

    def script(prefix, rng):
        return "Let me see. \\boxed{" + ("-1" if rng.random() < 0.25 else "1") + "}"

    policy = ScriptedPolicy(script)
    scorer = GenerativeScorer(policy, GENERATIVE["judge"], n_samples=400)
    (found,) = scorer.score([SOLUTION])
    assert found.values[0] == 1.0
    assert found.values[1] == found.values[2] == pytest.approx(0.25, abs=0.065)
    prompt = policy.requests[0][0].problem.messages[0].content
    assert "<paragraph_1>\n2 + 2 = 5\n</paragraph_1>" in prompt
    assert "What is 1 + 1?" in prompt


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("\\boxed{-1}", (1.0, 1.0, 1.0)),
        ("\\boxed{0}", (0.0, 0.0, 0.0)),
        ("\\boxed{2}", (1.0, 1.0, 0.0)),
    ],
)
def test_an_index_by_hand(words, values):
    scorer = GenerativeScorer(ScriptedPolicy(lambda p, r: words), GENERATIVE["judge"], n_samples=1)
    assert scorer.score([SOLUTION])[0].values == values


def test_critiques_without_a_verdict_are_unscored_not_zero():
    scorer = GenerativeScorer(ScriptedPolicy(lambda p, r: "Hm."), GENERATIVE["judge"], n_samples=2)
    (found,) = scorer.score([SOLUTION])
    assert isinstance(found, Unscored)
    assert "names no paragraph" in found.reason

    def sometimes(prefix, rng):
        return "\\boxed{1}" if rng.random() < 0.5 else "\\boxed{7}"

    scorer = GenerativeScorer(ScriptedPolicy(sometimes), GENERATIVE["judge"], n_samples=20)
    # Verdicts about a paragraph that is not there count for nothing.
    assert scorer.score([SOLUTION])[0].values == (1.0, 0.0, 0.0)


def test_a_judge_with_logits_is_asked_of_every_paragraph():
    chances = {"0": 0.9, "1": 0.2, "2": 0.4}
    policy = Choosing(
        lambda prefix, rng: "A critique.",
        lambda prefix: chances[reply_of(prefix).rsplit("paragraph ", 1)[1][0]],
    )
    assert isinstance(policy, Chooser)
    (found,) = GenerativeScorer(policy, GENERATIVE["judge"], n_samples=2).score([SOLUTION])
    assert found.values == pytest.approx((0.9, 0.2, 0.4))
    prefix, choices = policy.asked[0]
    assert choices == (" Yes", " No")
    assert reply_of(prefix) == "A critique.\n\nIs paragraph 0 right? Answer Yes or No:"


def test_think_prm_reads_each_prefix():
    policy = Choosing(
        lambda prefix, rng: "Step by step.\nIs the solution correct? yes",
        lambda prefix: 1 / len(prefix.problem.messages[0].content.split("Step ")),
    )
    (found,) = GenerativeScorer(policy, GENERATIVE["think_prm"]).score([SOLUTION])
    asked = [prefix.problem.messages[0].content for prefix, _ in policy.asked]
    assert ["Step 3: The answer is 5." in text for text in asked] == [False, False, True]
    assert [
        reply_of(prefix).endswith("\nIs the solution correct?") for prefix, _ in policy.asked
    ] == [True] * 3
    assert found.values[0] > found.values[1] > found.values[2]


def test_think_prm_without_logits_reads_its_boxes():
    def script(prefix, rng):
        wrong = "Step 2" in prefix.problem.messages[0].content
        return "\\boxed{correct} then \\boxed{" + ("incorrect" if wrong else "correct") + "}"

    (found,) = GenerativeScorer(ScriptedPolicy(script), GENERATIVE["think_prm"]).score([SOLUTION])
    assert found.values == (1.0, 0.0, 0.0)


def test_r_prm_with_and_without_logits():
    question = "Verification: Is the step correct (Yes/No)?"

    def script(prefix, rng):
        if reply_of(prefix).endswith(question):
            return " No" if "Now Step: Step 2" in prefix.problem.messages[0].content else " Yes"
        return f"Analysis. {question} Yes"

    (found,) = GenerativeScorer(ScriptedPolicy(script), GENERATIVE["r_prm"], n_samples=1).score(
        [SOLUTION]
    )
    assert found.values == (1.0, 0.0, 1.0)
    policy = Choosing(script, lambda prefix: 0.3)
    (found,) = GenerativeScorer(policy, GENERATIVE["r_prm"], n_samples=3).score([SOLUTION])
    assert found.values == pytest.approx((0.3, 0.3, 0.3))


def test_gen_prm_keeps_its_critiques_in_the_conversation():
    policy = Choosing(lambda prefix, rng: "fine.\n</analyze>", lambda prefix: 0.75)
    (found,) = GenerativeScorer(policy, GENERATIVE["gen_prm"]).score([SOLUTION])
    assert found.values == pytest.approx((0.75, 0.75, 0.75))
    last = policy.asked[-1][0]
    roles = [message.role for message in last.problem.messages]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]
    assert last.problem.messages[2].content == (
        "<analyze>\nLet's analyze the Paragraph 1 step by step: fine.\n</analyze>\n"
        "<output>\n**Judgement**: $\\boxed{Yes}$\n</output>"
    )
    assert reply_of(last).endswith("<output>\n**Judgement**: $\\boxed{")


def test_gen_prm_runs_programs_only_where_allowed():
    with pytest.raises(ScoringError, match="--allow-code"):
        GenerativeScorer(ScriptedPolicy(lambda p, r: ""), GENERATIVE["gen_prm_code"])

    def script(prefix, rng):
        if reply_of(prefix).endswith("```python\n"):
            return "print(6 * 7)\n```\nmore"
        return "fine.</analyze>"

    policy = Choosing(script, lambda prefix: 0.5)
    scorer = GenerativeScorer(policy, GENERATIVE["gen_prm_code"], allow_code=True)
    scorer.score([SOLUTION.prefix(1)])
    assert "[Code Output]\n\n```\n42\n```\n</verify>" in reply_of(policy.asked[0][0])


def test_results_do_not_depend_on_the_batch():
    def script(prefix, rng):
        return "\\boxed{" + str(rng.choice([-1, 0, 1])) + "}"

    def scores(batch):
        return GenerativeScorer(ScriptedPolicy(script), GENERATIVE["judge"], n_samples=5).score(
            batch
        )

    others = [SOLUTION.prefix(2), SOLUTION.model_copy(update={"answer": "x"})]
    assert scores([SOLUTION]) == scores([*others, SOLUTION])[2:]


def test_what_is_too_long_drops_out_alone():
    class Short(ScriptedPolicy):
        def complete(self, prefixes, n, settings, seeds, first=None):
            if any(len(p.problem.text) > 1000 for p in prefixes):
                raise InputTooLong("5000 tokens")
            return super().complete(prefixes, n, settings, seeds, first)

    long = SOLUTION.model_copy(update={"problem": Problem(id="l", prompt="x" * 2000)})
    scorer = GenerativeScorer(Short(lambda p, r: "\\boxed{-1}"), GENERATIVE["judge"], n_samples=1)
    found = scorer.score([SOLUTION, long])
    assert isinstance(found[0], StepScores)
    assert isinstance(found[1], Unscored)
    assert "5000 tokens" in found[1].reason


def test_a_critique_that_could_not_be_drawn_drops_out_with_the_reason():
    class Flaky(ScriptedPolicy):
        def complete(self, prefixes, n, settings, seeds, first=None):
            drawn = super().complete(prefixes, n, settings, seeds, first)
            return [
                [failed("fell over")] if seed % 2 else d
                for seed, d in zip(seeds, drawn, strict=True)
            ]

    class Gone(ScriptedPolicy):
        def complete(self, prefixes, n, settings, seeds, first=None):
            return [[failed("fell over")] for _ in prefixes]

    def found(policy):
        (scored,) = GenerativeScorer(policy, GENERATIVE["judge"], n_samples=40).score([SOLUTION])
        return scored

    # Of many critiques about half are there; all that are say the same.
    assert found(Flaky(lambda p, r: "\\boxed{-1}")).values == (1.0, 1.0, 1.0)
    assert "fell over" in found(Gone(lambda p, r: "")).reason


@pytest.mark.parametrize("name", [n for n in GENERATIVE if n != "gen_prm_code"])
def test_a_real_model_judges(name, tmp_path):
    """Random weights say nothing sensible; every step has a probability all the same."""
    policy = HFPolicy(tiny_checkpoint(name, tmp_path), device="cpu")
    scorer = GenerativeScorer(policy, GENERATIVE[name], n_samples=1, max_new_tokens=12)
    (found,) = scorer.score([SOLUTION.prefix(2)])
    assert isinstance(found, StepScores)
    assert len(found.values) == 2
    assert all(0 < value < 1 for value in found.values)


def test_choices_by_hand(tiny_lm):
    """The probabilities are those of the next token's logits among the choices."""
    import torch
    from transformers import AutoModelForCausalLM

    from prmkit.chat import encode_question
    from prmkit.checkpoints import load_tokenizer
    from prmkit.errors import PolicyError

    policy = HFPolicy(tiny_lm, device="cpu")
    problems = [Problem(id="a", prompt="Mia has"), Problem(id="b", prompt="How many apples?")]
    found = policy.choose([Trajectory(problem=p) for p in problems], (" 12", " apples"))
    tokenizer = load_tokenizer(tiny_lm)
    model = AutoModelForCausalLM.from_pretrained(tiny_lm, dtype=torch.float32).eval()
    columns = tokenizer(" 12")["input_ids"] + tokenizer(" apples")["input_ids"]
    for problem, row in zip(problems, found, strict=True):
        with torch.no_grad():
            ids = torch.tensor([encode_question(tokenizer, problem)])
            expected = model(input_ids=ids).logits[0, -1][columns].softmax(-1)
        assert row == pytest.approx(expected.tolist(), abs=1e-5)
    with pytest.raises(PolicyError, match="do not begin with different tokens"):
        policy.choose([Trajectory(problem=problems[0])], (" apples", " apples and"))


def test_seeds_are_of_their_own():
    """Two samples of one solution do not write the same words."""
    seen = set()

    def script(prefix, rng):
        seen.add(rng.random())
        return "\\boxed{-1}"

    GenerativeScorer(ScriptedPolicy(script), GENERATIVE["judge"], n_samples=6).score([SOLUTION] * 1)
    assert len(seen) == 6


@pytest.mark.parametrize(("asked", "expected"), [(None, 8192), (6000, 6000)])
def test_a_critique_has_the_whole_of_its_budget(asked, expected):
    budgets = []

    class Watching(ScriptedPolicy):
        def complete(self, prefixes, n, settings, seeds, first=None):
            budgets.append(settings.max_new_tokens)
            return super().complete(prefixes, n, settings, seeds, first)

    policy = Watching(lambda prefix, rng: "\\boxed{-1}")
    GenerativeScorer(policy, GENERATIVE["judge"], n_samples=1, max_new_tokens=asked).score(
        [SOLUTION]
    )
    assert budgets == [expected]
