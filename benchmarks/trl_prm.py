"""TRL's side of `training_speed.py`: run by the Python of TRL's own environment, never by prmkit's.

    .venv-trl/bin/python benchmarks/trl_prm.py SPEC

SPEC is a JSON file; what was measured is printed as one line of JSON. Everything that the
comparison rests on is set to what is right and quick on a CPU: float32, no gradient checkpointing
(TRL's default is to use it), no accumulation, no truncation.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
import transformers
from datasets import Dataset
from transformers import AutoModelForTokenClassification, AutoTokenizer
from trl import __version__
from trl.experimental.prm import PRMConfig, PRMTrainer


def peak_gib() -> float:
    """The most memory that this process had; what `resource` says begins with its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 2**20


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(spec["threads"])
    rows = [json.loads(line) for line in Path(spec["rows"]).read_text().splitlines()]
    begun = time.perf_counter()
    model = AutoModelForTokenClassification.from_pretrained(spec["model"], dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(spec["model"])
    arguments = PRMConfig(
        output_dir=spec["out"] + ".checkpoints",
        max_steps=spec["steps"],
        per_device_train_batch_size=spec["batch_size"],
        gradient_accumulation_steps=1,
        learning_rate=spec["learning_rate"],
        lr_scheduler_type="cosine",
        warmup_steps=int(spec["steps"] * 0.05),
        weight_decay=0.0,
        bf16=False,
        gradient_checkpointing=False,
        max_length=None,
        train_on_last_step_only=spec["last_only"],
        train_sampling_strategy=spec["order"],
        use_cpu=True,
        seed=0,
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    trainer = PRMTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    ids = [row["input_ids"] for row in trainer.train_dataset]
    prepared, busy = time.perf_counter(), time.process_time()
    trainer.train()
    seconds, cpu = time.perf_counter() - prepared, time.process_time() - busy
    trainer.save_model(spec["out"])
    told = {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "prepare_seconds": prepared - begun,
        "peak_gib": peak_gib(),
        "tokens": sum(map(len, ids)),
        "first_ids": ids[0],
        "versions": {"trl": __version__, "transformers": transformers.__version__},
    }
    print("TOLD " + json.dumps(told))


if __name__ == "__main__":
    main()
