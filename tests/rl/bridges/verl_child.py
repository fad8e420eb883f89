"""verl's side of `test_verl.py`: run by the Python of verl's own environment.

    PYTHONPATH=src .venv-verl/bin/python tests/rl/bridges/verl_child.py

verl's own code calls ours wherever it would in a run; what came of it is printed as one line of
JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
from functools import partial

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import verl
from omegaconf import OmegaConf
from verl import DataProto
from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase
from verl.experimental.reward_loop.reward_manager.naive import NaiveRewardManager as LoopNaive
from verl.trainer.ppo.core_algos import get_adv_estimator_fn
from verl.trainer.ppo.ray_trainer import compute_advantage
from verl.workers.reward_manager.batch import BatchRewardManager
from verl.workers.reward_manager.naive import NaiveRewardManager

from prmkit import DiscriminativeScorer, Problem, Step, Trajectory, aggregate_scores
from prmkit.checkpoints import load_tokenizer
from prmkit.embedded.build import WEIGHTS
from prmkit.rl.bridges.scoring import StepRewards
from prmkit.rl.bridges.verl import (
    ScoreFunction,
    StepRewardManager,
    register,
    reward_loop_manager,
)

TOKENIZER = load_tokenizer(WEIGHTS / "policy")
PRM = DiscriminativeScorer(WEIGHTS / "prm", device="cpu")
REWARDS = StepRewards(scorer=PRM, how="min", split="line")
QUESTION = (
    "Luis has 7 cards and gets 9 cards. Luis loses 8 cards. How many cards does Luis have now?"
)
TEXTS = [
    "So Luis has 7 + 9 = 16 cards.\nNow Luis has 16 - 8 = 8 cards.\nThe answer is 8.\n",
    "So Luis has 7 + 9 = 15 cards.\nThe answer is 15.\n",
    "The answer is 8.\n",
    "So Luis has 7 + 8 = 15 cards.\nNow Luis has 15 - 9 = 6 cards.\nThe answer is 6.\n",
]


def batch(raw_prompt):
    """A batch of verl's: prompts padded at the left, responses at the right."""
    prompt = TOKENIZER(QUESTION, add_special_tokens=False)["input_ids"]
    ids = [
        [*TOKENIZER(text, add_special_tokens=False)["input_ids"], TOKENIZER.eos_token_id]
        for text in TEXTS
    ]
    longest, pad = max(map(len, ids)) + 2, TOKENIZER.pad_token_id
    responses = torch.tensor([one + [pad] * (longest - len(one)) for one in ids])
    prompts = torch.tensor([[pad, pad, *prompt]] * len(ids))
    there = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in ids])
    before = torch.tensor([[0, 0] + [1] * len(prompt)] * len(ids))
    others = {
        "data_source": ["world"] * len(ids),
        "reward_model": [{"ground_truth": "8"}] * len(ids),
        "extra_info": [{"question": QUESTION} for _ in ids],
        "uid": ["a", "a", "b", "a"],
    }
    if raw_prompt:
        others["raw_prompt"] = [[{"role": "user", "content": QUESTION}]] * len(ids)
        del others["extra_info"]
    arrays = {}
    for name, values in others.items():
        arrays[name] = np.empty(len(ids), dtype=object)
        arrays[name][:] = values
    return DataProto.from_dict(
        tensors={
            "prompts": prompts,
            "responses": responses,
            "attention_mask": torch.cat([before, there], dim=1),
            "response_mask": there,
        },
        non_tensors=arrays,
    )


def expected():
    """The scores, and the first token after which each step is there, found by a scan."""
    problem = Problem(id="p", prompt=QUESTION)
    cut = [text.splitlines(keepends=True) for text in TEXTS]
    scored = PRM.score(
        [Trajectory(problem=problem, steps=tuple(Step(text=s) for s in steps)) for steps in cut]
    )
    places = []
    for text, steps in zip(TEXTS, cut, strict=True):
        ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
        lengths = [len(TOKENIZER.decode(ids[: t + 1])) for t in range(len(ids))]
        ends = np.cumsum([len(step) for step in steps])[:-1]
        places.append([int(np.searchsorted(lengths, end)) for end in ends] + [len(ids)])
    return scored, places


def outcome(data_source, solution_str, ground_truth, extra_info=None):
    return {"score": float(f"is {ground_truth}." in solution_str)}


def main():
    torch.set_num_threads(1)
    scored, places = expected()
    dense = torch.zeros(batch(False).batch["responses"].shape)
    for i, (one, ends) in enumerate(zip(scored, places, strict=True)):
        dense[i, ends] = torch.tensor(one.values)
    mins = [aggregate_scores(one, "min") for one in scored]
    right = torch.zeros(dense.shape)
    for i, ends in enumerate(places):
        right[i, ends[-1]] = float("is 8." in TEXTS[i])

    function = ScoreFunction(REWARDS)
    naive = NaiveRewardManager(TOKENIZER, 0, function.compute_score)(batch(False), True)
    many = BatchRewardManager(TOKENIZER, 0, function.compute_scores)(batch(False), True)
    make = partial(StepRewardManager, rewards=REWARDS)
    own = make(TOKENIZER, 1, outcome, "data_source")(batch(False), return_dict=True)
    from_messages = make(tokenizer=TOKENIZER)(batch(True))
    joined = make(TOKENIZER, 0, outcome, outcome=0.5)(batch(False))

    config = OmegaConf.create({"trainer": {"experiment_name": "x"}})
    manager_class = reward_loop_manager(REWARDS)

    async def loop():
        single = LoopNaive(config, TOKENIZER, function.compute_score)
        manager = manager_class(
            config, TOKENIZER, None, reward_router_address=None, reward_model_tokenizer=None
        )
        data = batch(True)
        plain = [await single.run_single(batch(False)[i : i + 1]) for i in range(len(TEXTS))]
        return plain, [await manager.run_single(data[i : i + 1]) for i in range(len(TEXTS))]

    plain, found = asyncio.run(loop())
    # Rewards come from other processes.
    scores = [pickle.loads(pickle.dumps(one))["reward_score"] for one in found]
    assembled = manager_class.assemble_rm_scores(batch(True), scores)
    at_end = RewardManagerBase.assemble_rm_scores(batch(True), scores)

    names = register()
    register()
    advantages = {}
    for name in names:
        data = batch(False)
        data.batch["token_level_rewards"] = dense
        settings = OmegaConf.create({"gamma": 1.0, "use_kl_in_reward": False})
        advantages[name] = compute_advantage(data, name, config=settings)
    told = {
        "version": verl.__version__,
        "naive": [naive["reward_tensor"].sum(1).tolist(), naive["reward_extra_info"]],
        "batch": [many["reward_tensor"].sum(1).tolist(), many["reward_extra_info"]],
        "loop": [[one["reward_score"] for one in plain], plain[0]["reward_extra_info"]],
        "mins": mins,
        "dense_off": (own["reward_tensor"] - dense).abs().max().item(),
        "dense_notes": own["reward_extra_info"],
        "messages_off": (from_messages - dense).abs().max().item(),
        "joined_off": (joined - dense - 0.5 * right).abs().max().item(),
        "is_manager": issubclass(manager_class, RewardManagerBase),
        "assembled_off": (assembled - dense).abs().max().item(),
        "streamed": at_end.sum(1).tolist(),
        "as_float": torch.tensor(scores).tolist(),
        "groups": list(batch(False).non_tensor_batch["uid"]),
        "values": [list(one.values) for one in scored],
        "places": places,
        "n_tokens": batch(False).batch["response_mask"].sum(1).tolist(),
        "advantages": {k: v.batch["advantages"].tolist() for k, v in advantages.items()},
        "returns_off": max(
            (v.batch["advantages"] - v.batch["returns"]).abs().max().item()
            for v in advantages.values()
        ),
        "known": get_adv_estimator_fn(names[0]).__module__,
    }
    print("TOLD " + json.dumps(told))


if __name__ == "__main__":
    main()
