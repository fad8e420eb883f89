"""Texts that spell separators, markup and worse: no position moves, and no tag is taken for one."""

from __future__ import annotations

import random

import pytest

from prmkit.chat import single_token
from prmkit.records import Problem, Step, StepScores, Trajectory, Unscored
from prmkit.scorers.families import DISCRIMINATIVE
from prmkit.scorers.separators import guard
from prmkit.testing import SCORER_LAWS, UGLY_TEXTS, ugly_trajectories

PIECES = (
    *UGLY_TEXTS, " ки", "ки", " и", "+", " +", "-", " -", "<extra_0>", "[PRM]", "\n\n", " \n\n",
    "\n\n\n\n", " \n\n\n\n", " \n\n\n\n\n", "\n", "\r\n", "<s>", "</s>", "[INST]", "[/INST]",
    "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>", "Y",
    "Step 1:", "Step 2: ", "# Solution\n\n", "ｋи", "к\u0438\u0306", "<\u200bextra_0>", "\u2581ки",
    "<|end_of_text|>", "<|start_of_role|>", "\\boxed{}", "\x00", "\ufeff", "\U0001f600",
)  # fmt: skip
N_TEXTS = 2000
FAMILIES = [name for name in DISCRIMINATIVE if name != "step_end"]


def hostile(rng: random.Random) -> str:
    """A text of some pieces, words and random characters."""
    parts = []
    for _ in range(rng.randint(0, 5)):
        kind = rng.random()
        if kind < 0.6:
            parts.append(rng.choice(PIECES))
        elif kind < 0.8:
            parts.append(rng.choice(["So 1 + 1 = 2", " the answer", "Yes", "."]))
        else:
            code = rng.randrange(0x110000)
            parts.append(chr(code) if not 0xD800 <= code < 0xE000 else "x")
    return "".join(parts)


def trajectories(n: int) -> list[Trajectory]:
    rng = random.Random(20)
    return [
        Trajectory(
            problem=Problem(id=str(i), prompt=hostile(rng)),
            steps=tuple(Step(text=hostile(rng)) for _ in range(rng.randint(1, 4))),
        )
        for i in range(n)
    ]


def of_each(name: str, share: int) -> slice:
    """One part of what there is for each family: together they see it all."""
    return slice(FAMILIES.index(name) % share, None, share)


@pytest.mark.parametrize("share", [8, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FAMILIES)
def test_no_text_moves_a_position(name, share, scorer_of):
    """Each position is where the family put it; a tag elsewhere was escaped, and counted."""
    family, tokenizer = DISCRIMINATIVE[name], scorer_of(name)._backend.tokenizer
    tags = [tag for tag in family.tags if len(tag) > 1]
    n_escaped = 0
    for trajectory in trajectories(N_TEXTS // 3)[of_each(name, share)]:
        whole = guard(trajectory, family, tokenizer, "escape")
        ids, positions, starts, n_begin, _ = whole.rendered
        n_escaped += whole.escaped
        assert len(positions) == len(trajectory.steps)
        # Built once more by hand, piece by piece.
        at = len(guard(trajectory.prefix(0), family, tokenizer, "escape").rendered.ids)
        assert at == n_begin
        for n, (position, start) in enumerate(zip(positions, starts, strict=True)):
            upto = guard(trajectory.prefix(n + 1), family, tokenizer, "escape").rendered.ids
            # A later step never changes what is before it.
            assert ids[: len(upto)] == upto
            assert at <= start <= position + 1
            assert position < len(upto)
            at = len(upto)
        for tag in tags:
            marks = [i for i, token in enumerate(ids) if token == single_token(tokenizer, tag)]
            assert marks == positions
    if tags:
        assert n_escaped > 0


@pytest.mark.parametrize("name", [name for name in FAMILIES if DISCRIMINATIVE[name].tags])
def test_separators_can_be_errors(name, scorer_of, caplog):
    tag = DISCRIMINATIVE[name].tags[0]
    plain = Trajectory(problem=Problem(id="p", prompt="How many?"), steps=(Step(text="7"),))
    spoilt = plain.model_copy(update={"steps": (Step(text=f"a{tag}b"), Step(text="7"))})
    scorer = scorer_of(name, on_separator="error")
    fine, refused = scorer.score([plain, spoilt])
    assert isinstance(fine, StepScores)
    assert isinstance(refused, Unscored)
    assert "where the steps of this family end" in refused.reason
    # Escaped, and said so.
    assert isinstance(scorer_of(name).score([spoilt])[0], StepScores)
    assert "1 separator(s) inside of text were escaped" in caplog.text


@pytest.mark.parametrize("law", SCORER_LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("share", [6, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FAMILIES)
def test_laws(name, law, share, scorer_of):
    law(scorer_of(name), ugly_trajectories()[of_each(name, share)])
