"""TRL's side of `test_trl.py`: run by the Python of TRL's own environment.

    PYTHONPATH=src .venv-trl/bin/python tests/rl/bridges/trl_child.py FOLDER

Started by torchrun, it does `several_processes` alone. What was seen is printed as one line of
JSON.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer, __version__

from prmkit import DiscriminativeScorer, Step, StepScores, Trajectory
from prmkit.embedded.build import WEIGHTS
from prmkit.embedded.world import problems
from prmkit.errors import InvalidSetting
from prmkit.records import Problem
from prmkit.rl.bridges.scoring import StepRewards
from prmkit.rl.bridges.trl import StepRewardFunc, dense_trainer

OUT = Path(sys.argv[1])
N_PROMPTS, GROUP = 4, 4


def settings(**given):
    return GRPOConfig(
        **{
            "output_dir": str(OUT / "run"),
            "max_steps": 3,
            "per_device_train_batch_size": N_PROMPTS * GROUP // 2,
            "gradient_accumulation_steps": 2,
            "num_generations": GROUP,
            "max_completion_length": 80,
            "learning_rate": 1e-4,
            "temperature": 1.0,
            "gradient_checkpointing": False,
            "bf16": False,
            "use_cpu": True,
            "dataloader_pin_memory": False,
            "report_to": "none",
            "disable_tqdm": True,
            "logging_steps": 1,
            "save_strategy": "no",
            "seed": 0,
            **given,
        }
    )


def policy():
    return AutoModelForCausalLM.from_pretrained(WEIGHTS / "policy", dtype=torch.float32)


def data(conversational):
    found = list(problems("train", 12))
    asked = [
        [{"role": "user", "content": p.prompt}]
        if conversational
        else f"<|problem|>{p.prompt}<|solution|>"
        for p in found
    ]
    return Dataset.from_dict({"prompt": asked, "answer": [p.answer for p in found]})


TOKENIZER = AutoTokenizer.from_pretrained(WEIGHTS / "policy")
PRM = DiscriminativeScorer(WEIGHTS / "prm", device="cpu")
BEFORE, AFTER = "<|problem|>", "<|solution|>"
REWARDS = StepRewards(scorer=PRM, how="min", split="line")


def outcome(completions, **_):
    """A reward that differs within groups, and does not judge each fifth completion."""
    lengths = [len(one[0]["content"]) for one in completions]
    return [None if i % 5 == 4 else float(n % 2) for i, n in enumerate(lengths)]


def plain(conversational):
    """A reward function: the run's rewards, and how far the policy moved."""
    model = policy()
    rewards = REWARDS if conversational else replace(REWARDS, before=BEFORE, after=AFTER)
    before = torch.cat([p.detach().flatten().clone() for p in model.parameters()])
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=[StepRewardFunc(rewards)],
        args=settings(),
        train_dataset=data(conversational),
        processing_class=TOKENIZER,
    )
    trainer.train()
    after = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    rows = [row for row in trainer.state.log_history if "reward" in row]
    return {"rows": rows, "moved": (after - before).abs().max().item()}


def by_hand(ids, mask, prompts):
    """GRPO with process supervision, arXiv:2402.03300 section 4.1.3, in plain Python.

    Everything is done again from the tokens that the loss sees: their text, its steps, the
    scores, one mean and deviation for each problem, and sums over later steps.
    """
    texts = [
        TOKENIZER.decode(i[m.bool()], skip_special_tokens=True)
        for i, m in zip(ids, mask, strict=True)
    ]
    asked = [TOKENIZER.decode(p, skip_special_tokens=True).strip() for p in prompts]
    cut = [t.splitlines(keepends=True) for t in texts]
    scored = PRM.score(
        [
            Trajectory(problem=Problem(id="p", prompt=q), steps=tuple(Step(text=s) for s in steps))
            for q, steps in zip(asked, cut, strict=True)
        ]
    )
    expected = torch.zeros(mask.shape)
    for i in range(len(cut)):
        pool = [v for j, q in enumerate(asked) if q == asked[i] for v in scored[j].values]
        mean = sum(pool) / len(pool)
        deviation = (sum((v - mean) ** 2 for v in pool) / (len(pool) - 1)) ** 0.5
        for t in range(int(mask[i].sum())):
            # Which step the token belongs to: the first whose text is not over before it.
            so_far = len(TOKENIZER.decode(ids[i][:t], skip_special_tokens=True))
            over = 0
            for k, step in enumerate(cut[i]):
                over += len(step)
                if so_far < over or k == len(cut[i]) - 1:
                    break
            later = scored[i].values[k:]
            expected[i, t] = sum((v - mean) / (deviation + 1e-6) for v in later)
    return expected


def watched(trainer):
    """The trainer, and a list of the inputs and the value of each loss."""
    seen, inner = [], trainer._compute_loss

    def compute(model, inputs):
        loss = inner(model, inputs)
        seen.append(({k: v.clone() for k, v in inputs.items() if v is not None}, loss.item()))
        return loss

    trainer._compute_loss = compute
    return trainer, seen


def dense():
    """Dense advantages, seen where the loss takes them."""
    trainer, seen = watched(
        dense_trainer(
            policy(),
            REWARDS,
            args=settings(),
            processing_class=TOKENIZER,
            train_dataset=data(True),
        )
    )
    trainer.train()
    worst, loss_off, shapes, spread = 0.0, 0.0, [], 0.0
    # A batch is cut in two for its losses; groups are whole again when they are joined.
    for first, second in zip(seen[::2], seen[1::2], strict=True):
        parts = [first[0], second[0]]
        ids, mask, prompts, ours = (
            torch.cat([p[k] for p in parts])
            for k in ("completion_ids", "completion_mask", "prompt_ids", "advantages")
        )
        expected = by_hand(ids, mask, prompts)
        worst = max(worst, ((ours - expected) * mask).abs().max().item())
        spread = max(spread, (ours.max(1).values - ours.min(1).values).max().item())
        shapes.append([list(ours.shape), list(ids.shape)])
        for inputs, loss in (first, second):
            # The ratio is 1 at the first step on fresh samples, so TRL's loss is minus the mean.
            n = inputs["num_items_in_batch"]
            at_one = -(inputs["advantages"] * inputs["completion_mask"]).sum() / n
            loss_off = max(loss_off, abs(at_one.item() - loss))
    rows = [row for row in trainer.state.log_history if "reward" in row]
    return {"worst": worst, "loss_off": loss_off, "shapes": shapes, "spread": spread, "rows": rows}


class Raised:
    """The PRM, with the score of one step of one completion raised."""

    name, semantics = "raised", "value"

    def __init__(self):
        self.response = self.step = None

    def score(self, trajectories):
        found = []
        for i, one in enumerate(PRM.score(trajectories)):
            values = list(one.values)
            if i == self.response:
                values[self.step] += 1.0
            found.append(StepScores(values=tuple(values), semantics="value", model="raised"))
        return found


def to_go(values, ends, group, mask):
    """The sum of the scores of the steps that are not over, without any normalisation."""
    del group
    places = torch.arange(mask.shape[1])
    counts = (ends[:, None, :] >= places[None, :, None]) & (ends[:, None, :] >= 0)
    return (values[:, None, :] * counts).sum(-1) * mask


def one_step():
    """The same completions, scored twice: what one step's score changes."""
    scorer = Raised()
    trainer = dense_trainer(
        policy(),
        replace(REWARDS, scorer=scorer),
        args=settings(),
        processing_class=TOKENIZER,
        train_dataset=data(True),
        advantages=to_go,
    )
    trainer.model.train()
    rows = [trainer.train_dataset[i // GROUP] for i in range(N_PROMPTS * GROUP)]
    outputs = []
    for response in (None, 5):
        scorer.response, scorer.step = response, 1
        torch.manual_seed(7)
        outputs.append(trainer._generate_and_score_completions([dict(row) for row in rows]))
    first, second = outputs
    ids = second["completion_ids"][5]
    text = TOKENIZER.decode(ids[second["completion_mask"][5].bool()], skip_special_tokens=True)
    two = "".join(text.splitlines(keepends=True)[:2])
    end = next(t for t in range(len(ids)) if TOKENIZER.decode(ids[: t + 1]).startswith(two))
    change = second["advantages"] - first["advantages"]
    return {
        "same": bool((first["completion_ids"] == second["completion_ids"]).all()),
        "steps": len(text.splitlines()),
        "upto": change[5, : end + 1].tolist(),
        "after": change[5, end + 1 :].abs().max().item(),
        "others": change[[i for i in range(len(change)) if i != 5]].abs().max().item(),
    }


def with_outcome():
    """What another reward adds: TRL's own advantage of the response, on each of its tokens."""
    both = []
    for advantages in (to_go, lambda values, ends, group, mask: torch.zeros(mask.shape)):
        trainer = dense_trainer(
            policy(),
            REWARDS,
            args=settings(reward_weights=[2.0], scale_rewards="none"),
            processing_class=TOKENIZER,
            train_dataset=data(True),
            reward_funcs=outcome,
            advantages=advantages,
        )
        trainer.model.train()
        rows = [trainer.train_dataset[i // GROUP] for i in range(N_PROMPTS * GROUP)]
        torch.manual_seed(7)
        both.append(trainer._generate_and_score_completions([dict(row) for row in rows]))
    of_outcome, mask = both[1]["advantages"], both[1]["completion_mask"]
    texts = [TOKENIZER.decode(i, skip_special_tokens=True) for i in both[1]["completion_ids"]]
    given = outcome([[{"content": t}] for t in texts])
    expected = []
    for i, one in enumerate(given):
        begin = i // GROUP * GROUP
        known = [2 * g for g in given[begin : begin + GROUP] if g is not None]
        expected.append(0.0 if one is None else 2 * one - sum(known) / len(known))
    off = (of_outcome - torch.tensor(expected)[:, None] * mask).abs().max().item()
    process = to_go_of(both[0])
    joined = (both[0]["advantages"] - of_outcome - process).abs().max().item()
    return {"off": off, "joined": joined, "unjudged": given.count(None), "expected": expected}


def to_go_of(output):
    """The step scores to go of an output's completions, from their text alone."""
    ids, mask = output["completion_ids"], output["completion_mask"]
    prompts = [TOKENIZER.decode(p, skip_special_tokens=True).strip() for p in output["prompt_ids"]]
    found = torch.zeros(mask.shape)
    for i, asked in enumerate(prompts):
        steps = TOKENIZER.decode(ids[i][mask[i].bool()], skip_special_tokens=True)
        steps = steps.splitlines(keepends=True)
        problem = Problem(id="p", prompt=asked)
        (scores,) = PRM.score(
            [Trajectory(problem=problem, steps=tuple(Step(text=s) for s in steps))]
        )
        for t in range(int(mask[i].sum())):
            so_far = len(TOKENIZER.decode(ids[i][:t], skip_special_tokens=True))
            over, k = 0, 0
            for k, step in enumerate(steps):  # noqa: B007
                over += len(step)
                if so_far < over:
                    break
            found[i, t] = sum(scores.values[k:])
    return found


def several_processes():
    """A group that is shared by all processes: its steps are compared with one another."""
    from accelerate.utils import gather_object

    trainer = dense_trainer(
        policy(),
        REWARDS,
        args=settings(
            max_steps=1,
            per_device_train_batch_size=3,
            gradient_accumulation_steps=1,
            num_generations=6,
            ddp_backend="gloo",
        ),
        processing_class=TOKENIZER,
        train_dataset=data(True),
    )
    trainer, seen = watched(trainer)
    trainer.train()
    own = seen[0][0]
    names = ("completion_ids", "completion_mask", "prompt_ids", "advantages")
    lines = [[own[name][i].tolist() for name in names] for i in range(len(own["advantages"]))]
    lines = gather_object(lines)
    longest = max(len(line[0]) for line in lines)
    # The processes pad to the longest of their own.
    padded = [[part + [0] * (longest - len(part)) for part in (a, b, d)] for a, b, _, d in lines]
    ids, mask, ours = (torch.tensor([line[k] for line in padded]) for k in range(3))
    expected = by_hand(ids, mask, [torch.tensor(line[2]) for line in lines])
    worst = ((ours - expected) * mask).abs().max().item()
    groups = len({tuple(t for t in line[2] if t != TOKENIZER.pad_token_id) for line in lines})
    return {"worst": worst, "lines": len(lines), "groups": groups, "most": ours.abs().max().item()}


def refused():
    """What settings that make one number of a response are told."""
    told = []
    for given in (
        {"off_policy_mask_threshold": 0.5},
        {"loss_type": "vespo"},
        {"importance_sampling_level": "sequence"},
        {"reward_weights": [1.0, 2.0]},
    ):
        try:
            dense_trainer(
                policy(),
                REWARDS,
                args=settings(**given),
                processing_class=TOKENIZER,
                train_dataset=data(True),
                reward_funcs=[outcome],
            )
        except InvalidSetting as error:
            told.append(str(error))
    return told


def main():
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    if "RANK" in os.environ:
        told = several_processes()
        if os.environ["RANK"] == "0":
            print("TOLD " + json.dumps(told))
        return
    told = {
        "version": __version__,
        "conversational": plain(True),
        "text": plain(False),
        "dense": dense(),
        "one_step": one_step(),
        "with_outcome": with_outcome(),
        "refused": refused(),
    }
    print("TOLD " + json.dumps(told))


if __name__ == "__main__":
    main()
