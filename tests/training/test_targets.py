"""Records to examples."""

from __future__ import annotations

from prmkit.checkpoints import load_tokenizer
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory
from prmkit.scorers.families import discriminative
from prmkit.training.targets import make_examples


class Counting:
    """A tokenizer that notes what it is given."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.given = []

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def __len__(self):
        return len(self.tokenizer)

    def __call__(self, text, **settings):
        self.given.append((text, *settings.items()))
        return self.tokenizer(text, **settings)


def test_what_alternatives_share_is_tokenised_once(tiny_lm):
    before = [Step(text=f"Ana has {n} pens.\n") for n in range(10)]
    problem = Problem(id="a", prompt="Ana?")
    records = [
        Record(
            trajectory=Trajectory(problem=problem, steps=(*before, Step(text=f"So {n}.\n"))),
            labels=StepLabels(values=(None,) * 10 + (float(n % 2),), kind="hard"),
        )
        for n in range(8)
    ]
    family, counting = discriminative("step_end"), Counting(load_tokenizer(tiny_lm))
    examples, _ = make_examples(records, family, counting, None)
    assert len(counting.given) == len(set(counting.given))
    tokenizer = load_tokenizer(tiny_lm)
    for example, record in zip(examples, records, strict=True):
        assert example.ids == family.render(record.trajectory, tokenizer).ids
