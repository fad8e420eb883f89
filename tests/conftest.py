"""What all tests share."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Two workers with as many threads as cores each would wait for one another.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Processes that are started in the background ignore Ctrl-C, and so would those that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more of the machine than of the code.
settings.register_profile("here", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")


@pytest.fixture
def prm(capsys):
    """The commands as they are typed, in this process."""
    from prmkit.cli import main

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; skips where it is absent."""
    folder = Path(os.environ.get("PRMKIT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real data is not at {folder}; set PRMKIT_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def tiny_lm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer language model with the embedded world's tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from prmkit.checkpoints import save_model
    from prmkit.embedded.vocabulary import build_tokenizer

    torch.manual_seed(1)
    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        intermediate_size=48,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=1024,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.3,
    )
    folder = tmp_path_factory.mktemp("models") / "tiny_lm"
    save_model(folder, LlamaForCausalLM(config), tokenizer, {"family": "none"})
    return folder


@pytest.fixture(scope="session")
def tiny_prm(tiny_lm: Path) -> Path:
    """The same with a random two-class head."""
    import torch

    from prmkit.checkpoints import load_tokenizer, save_model, start_token_classifier

    torch.manual_seed(2)
    folder = tiny_lm.with_name("tiny_prm")
    model = start_token_classifier(tiny_lm, 2)
    torch.nn.init.normal_(model.score.weight, std=0.2)
    save_model(folder, model, load_tokenizer(tiny_lm), {"family": "step_end"})
    return folder
