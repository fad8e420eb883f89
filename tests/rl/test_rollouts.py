"""Responses with their tokens: where steps end, what teaches nothing, what is scored."""

from __future__ import annotations

import pytest

from prmkit.errors import PolicyError
from prmkit.policies.base import Completion, Drawn, SamplingSettings
from prmkit.policies.sampling import Outcome
from prmkit.records import Problem, StepScores, Unscored
from prmkit.rl.rollouts import Drawing, are_right, roll_out
from prmkit.splitting import splitter

TOKENS = ["<end>", "<stop>", "a", "bc\n", "d\ne", "\n", "f\ng\nh", "fin"]
END, STOP = 0, 1
PROBLEMS = [Problem(id="one", prompt="1?"), Problem(id="two", prompt="2?")]
SETTINGS = SamplingSettings(max_new_tokens=9)


class Words:
    """Each token is a text; the first two are special."""

    def decode(self, ids, *, skip_special_tokens, clean_up_tokenization_spaces):
        assert skip_special_tokens
        assert not clean_up_tokenization_spaces
        return "".join(TOKENS[i] for i in ids if i > STOP)


class Says:
    """Draws what it is told to, and keeps what it was asked."""

    name, takes_ids = "says", True

    def __init__(self, *drawn):
        self.drawn = list(drawn)

    def question_ids(self, problem):
        return [len(problem.prompt), 9]

    def continue_ids(self, prefixes, counts, settings, seeds, first=None):
        self.asked = (prefixes, counts, settings, seeds)
        return [[self.drawn.pop(0) for _ in range(n)] for n in counts]


def drawn(*ids, finish="eos", end=None, text=None):
    known = "".join(TOKENS[i] for i in ids if i > STOP) if text is None else text
    return Drawn(Completion(known, finish, len(ids)), ids if text is None else None, end=end)


def drawing(policy):
    def judge(problem, text):
        return Outcome(text.strip()[-3:] or None, {"": None}.get(text, text.endswith("fin")))

    return Drawing(policy, Words(), END, splitter("line"), judge)


def one(*ids, **more):
    (found,) = roll_out(drawing(Says(drawn(*ids, **more))), PROBLEMS[:1], 1, SETTINGS, 0)
    return found


def texts(rollout):
    return [step.text for step in rollout.trajectory.steps]


def test_a_step_ends_with_the_token_that_holds_its_last_character():
    found = one(2, 3, 4, 5, 7)
    assert texts(found) == ["abc\n", "d\n", "e\n", "fin"]
    # The third token has the end of one step and the beginning of the next; the end token is
    # the last step's.
    assert found.ids == (2, 3, 4, 5, 7, END)
    assert found.ends == (1, 2, 3, 5)
    assert found.prompt == (2, 9)
    assert (found.trajectory.finish, found.trajectory.correct) == ("eos", True)
    assert found.trajectory.generator == "says"
    assert found.scores is None


def test_steps_inside_of_one_token_end_together():
    found = one(6, 3)
    assert texts(found) == ["f\n", "g\n", "hbc\n"]
    assert found.ends == (0, 0, 2)


def test_an_answer_of_nothing_is_its_end_token():
    found = one()
    assert (found.ids, found.ends, texts(found)) == ((END,), (), [])
    assert found.trajectory.finish == "eos"


def test_the_end_token_that_was_drawn_is_taught():
    assert one(3, end=STOP).ids == (3, STOP)
    assert one(3, end=STOP).ends == (1,)


def test_what_the_limit_cut_has_no_end_token():
    found = one(3, 2, finish="length")
    assert (found.ids, found.ends) == ((3, 2), (0, 1))
    assert found.trajectory.finish == "length"


@pytest.mark.parametrize(
    "broken",
    [
        drawn(text="bc\n half a character"),
        # A special token that the text does not show, and one in the text.
        Drawn(Completion("a<stop>bc\n", "eos", 4), (2, STOP, 3)),
        Drawn(Completion("bc\nmore", "length", 1), (3,)),
    ],
)
def test_tokens_that_do_not_spell_the_text_teach_nothing(broken):
    policy = Says(drawn(3), broken, drawn(2))
    before, found, after = roll_out(drawing(policy), PROBLEMS[:1], 3, SETTINGS, 0)
    assert (found.ids, found.ends, found.scores) == ((), (), None)
    assert found.trajectory.steps == ()
    assert (found.trajectory.finish, found.trajectory.correct) == ("error", None)
    assert (before.ids, after.ids) == ((3, END), (2, END))


def test_what_could_not_be_drawn_is_told():
    policy = Says(drawn(3), Drawn(Completion("", "error", 0, "the server is gone")))
    with pytest.raises(PolicyError, match="'two': the server is gone"):
        roll_out(drawing(policy), PROBLEMS, 1, SETTINGS, 0)


def test_responses_to_one_problem_are_together_and_each_problem_has_a_seed():
    policy = Says(*(drawn(i) for i in (2, 3, 5, 7)))
    found = roll_out(drawing(policy), PROBLEMS, 2, SETTINGS, 5)
    assert [r.trajectory.problem.id for r in found] == ["one", "one", "two", "two"]
    assert [r.ids[0] for r in found] == [2, 3, 5, 7]
    prefixes, counts, settings, seeds = policy.asked
    assert (prefixes, counts, settings) == ([[2, 9], [2, 9]], [2, 2], SETTINGS)
    assert len(set(seeds)) == 2
    # One problem twice in a step is drawn from two seeds; another seed draws other ones.
    again = Says(*(drawn(2) for _ in range(4)))
    roll_out(drawing(again), [PROBLEMS[0]] * 2, 2, SETTINGS, 5)
    assert again.asked[3][0] == seeds[0] != again.asked[3][1]
    again.drawn = [drawn(2)]
    roll_out(drawing(again), PROBLEMS[:1], 1, SETTINGS, 6)
    assert again.asked[3][0] != seeds[0]


def test_a_share_of_the_problems_draws_what_the_whole_would():
    for draw in (roll_out, are_right):
        whole, share = Says(*(drawn(2) for _ in range(2))), Says(drawn(2))
        draw(drawing(whole), PROBLEMS, 1, SETTINGS, 5)
        draw(drawing(share), PROBLEMS[1:], 1, SETTINGS, 5, first=1)
        assert share.asked[3] == whole.asked[3][1:]


class Scores:
    name, semantics = "scores", "correctness"

    def score(self, trajectories):
        self.asked = list(trajectories)
        return [
            Unscored(reason="too odd")
            if t.steps[0].text == "a"
            else StepScores(values=(0.5,) * len(t.steps), semantics="correctness", model="m")
            for t in trajectories
        ]


def test_what_has_steps_is_scored_in_one_batch():
    policy = Says(drawn(3, 7), drawn(), drawn(2), drawn(text="?"), drawn(7))
    scorer = Scores()
    found = roll_out(drawing(policy), PROBLEMS[:1], 5, SETTINGS, 0, scorer)
    assert [len(t.steps) for t in scorer.asked] == [2, 1, 1]
    assert found[0].scores.values == (0.5, 0.5)
    assert found[4].scores.values == (0.5,)
    assert [r.scores.reason for r in found[1:4]] == [
        "a response without a step", "too odd", "a response without a step",
    ]  # fmt: skip
    # A scorer is not asked about nothing.
    del scorer.asked
    (found,) = roll_out(drawing(Says(drawn())), PROBLEMS[:1], 1, SETTINGS, 0, scorer)
    assert isinstance(found.scores, Unscored)
    assert not hasattr(scorer, "asked")


def test_what_is_right_is_told_of_texts_broken_tokens_or_not():
    policy = Says(drawn(7), drawn(3), drawn(text="? fin"), drawn())
    assert are_right(drawing(policy), PROBLEMS, 2, SETTINGS, 0) == [True, False, True, False]
    failed = Says(Drawn(Completion("", "error", 0, "gone")))
    with pytest.raises(PolicyError, match="gone"):
        are_right(drawing(failed), PROBLEMS[:1], 1, SETTINGS, 0)
