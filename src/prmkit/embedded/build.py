"""Makes the shipped checkpoints: ``python -m prmkit.embedded.build [FOLDER]``, on a CPU.

Three models, each in the ordinary Hugging Face layout:

1. ``base``: a language model from scratch, on right solutions. It knows the arithmetic.
2. ``policy``: the base, trained further on solutions with learners' mistakes. It errs as they do.
3. ``prm``: the policy, trained to tell whether all is right so far, on solutions with mistakes
   that the world's judge labels, a new problem each time.

Each stage is written whole when it is done, and found again when the build is run again.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prmkit.checkpoints import NOTE_FILE, save_model, start_token_classifier
from prmkit.embedded.fitting import Fit, Weights, fit
from prmkit.embedded.lessons import batches, language_row, verdict_row
from prmkit.embedded.solutions import NO_MISTAKES, MistakeRates
from prmkit.embedded.vocabulary import build_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

WEIGHTS = Path(__file__).parent / "weights"
"""Where the shipped checkpoints lie."""


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """How the checkpoints are made.

    Attributes:
        hidden: width of the models.
        layers: their depth.
        batch_tokens: tokens of one batch.
        base_steps: batches of right solutions.
        policy_steps: batches of solutions with mistakes, for the policy.
        prm_steps: batches of labelled solutions, for the PRM.
        base_rate: Muon's learning rate for the base.
        policy_rate: the same for the policy.
        prm_rate: the same for the PRM.
        prm_language_weight: weight of predicting right steps while the PRM learns to judge.
        seed: of the first weights and of the solutions.
    """

    hidden: int = 128
    layers: int = 5
    batch_tokens: int = 4096
    base_steps: int = 1600
    policy_steps: int = 250
    prm_steps: int = 4200
    base_rate: float = 0.02
    policy_rate: float = 0.004
    prm_rate: float = 0.012
    prm_language_weight: float = 0.5
    seed: int = 0


def _progress(stage: str, step: int, loss: float) -> None:
    logger.info("%s: step %d, loss %.4f", stage, step, loss)


def build_base(settings: BuildSettings, tokenizer: PreTrainedTokenizerFast) -> tuple[Any, Fit]:
    """The base: from scratch, on right solutions."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(settings.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden,
            num_hidden_layers=settings.layers,
            intermediate_size=settings.hidden * 11 // 4,
            num_attention_heads=settings.hidden // 32,
            num_key_value_heads=settings.hidden // 32,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    row = partial(language_row, tokenizer=tokenizer, rates=NO_MISTAKES)
    done = fit(
        model,
        batches(row, 0, settings.seed, settings.batch_tokens),
        n_steps=settings.base_steps,
        learning_rate=settings.base_rate,
        on_progress=partial(_progress, "base"),
    )
    return model, done


def build_policy(
    settings: BuildSettings, tokenizer: PreTrainedTokenizerFast, base: Path
) -> tuple[Any, Fit]:
    """The policy: the base, further on solutions with learners' mistakes."""
    from prmkit.checkpoints import load_causal_lm

    model, _ = load_causal_lm(base, "cpu")
    row = partial(language_row, tokenizer=tokenizer, rates=MistakeRates())
    done = fit(
        model,
        batches(row, 10_000_000, settings.seed + 1, settings.batch_tokens),
        n_steps=settings.policy_steps,
        learning_rate=settings.policy_rate,
        decay_from=0.3,
        on_progress=partial(_progress, "policy"),
    )
    return model, done


def build_prm(
    settings: BuildSettings, tokenizer: PreTrainedTokenizerFast, policy: Path
) -> tuple[Any, Fit]:
    """The PRM: the policy, trained to judge."""
    import torch

    torch.manual_seed(settings.seed)
    model = start_token_classifier(policy, 2)
    row = partial(verdict_row, tokenizer=tokenizer, rates=MistakeRates())
    done = fit(
        model,
        batches(row, 20_000_000, settings.seed + 2, settings.batch_tokens),
        n_steps=settings.prm_steps,
        learning_rate=settings.prm_rate,
        decay_from=0.4,
        weights=Weights(next_token=settings.prm_language_weight),
        on_progress=partial(_progress, "prm"),
    )
    return model, done


def build(folder: Path, settings: BuildSettings) -> None:
    """Make the three checkpoints in `folder`; stages that are there already are kept."""
    import torch

    tokenizer = build_tokenizer()
    stages = {
        "base": partial(build_base, settings, tokenizer),
        "policy": partial(build_policy, settings, tokenizer, folder / "base"),
        "prm": partial(build_prm, settings, tokenizer, folder / "policy"),
    }
    for name, stage in stages.items():
        if (folder / name / NOTE_FILE).is_file():
            logger.info("%s: already in %s", name, folder)
            continue
        model, done = stage()
        note = {
            "made_by": "python -m prmkit.embedded.build",
            **({"family": "step_end"} if name == "prm" else {}),
            "settings": asdict(settings),
            "mistakes": asdict(MistakeRates()),
            "seconds": round(done.seconds),
            "tokens": done.n_tokens,
            "losses": [[step, round(loss, 4)] for step, loss in done.losses],
        }
        # Half the size on disk; they are read back as float32.
        save_model(folder / name, model.to(torch.float16), tokenizer, note)


def main() -> None:
    """Run the recipe from the command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else WEIGHTS
    build(folder, BuildSettings())


if __name__ == "__main__":
    main()
