"""``prm train``: options from files, the dry run, bad data, the card, the hub."""

from __future__ import annotations

import json
import random
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from prmkit.checkpoints import read_note
from prmkit.cli.configs import expanded
from prmkit.cli.train import judged
from prmkit.errors import FormatError
from prmkit.formats.files import write_records
from prmkit.records import Problem, Record, Step, StepLabels, Trajectory
from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.training import heads


def records(n=24, seed=0, kind="hard"):
    """Steps with apples are right; each problem has solutions of both kinds."""
    rng = random.Random(seed)
    made = []
    for i in range(n):
        values = [rng.randint(0, 1) for _ in range(rng.randint(1, 3))]
        texts = [f"Mia has {seed + i} {'apples' if v else 'pens'}.\n" for v in values]
        problem = Problem(id=f"{seed}-{i // 3}", prompt=f"Mia {i // 3}?")
        trajectory = Trajectory(problem=problem, steps=tuple(Step(text=t) for t in texts))
        labels = StepLabels(values=tuple(values), kind=kind)
        made.append(Record(trajectory=trajectory, labels=labels))
    return made


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "data.jsonl"
    write_records(records(), file)
    return file


@pytest.fixture
def no_model(monkeypatch):
    """Loading weights is a failure."""

    def loaded(*arguments, **more):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(heads, "start_token_classifier", loaded)
    monkeypatch.setattr(heads, "start_causal_lm", loaded)


def test_options_of_a_file_and_of_the_command_line(tmp_path):
    known = {"--epochs", "--learning-rate", "--share", "--lora-targets", "--from", "--out"}

    def options(text, *said, name="a.toml"):
        file = tmp_path / name
        file.write_text(text)
        return expanded(["data", "--config", str(file), *said], lambda: known)

    toml = 'epochs = 2\nlearning_rate = 1e-5\nshare = false\nlora-targets = ["q", "k"]\n'
    assert options(toml) == [
        "--epochs", "2", "--learning-rate", "1e-05", "--share=false", "--lora-targets", "q",
        "--lora-targets", "k", "data",
    ]  # fmt: skip
    assert options("epochs = 2", "--epochs=3") == ["data", "--epochs=3"]
    assert options('{"from_": "trl", "out": null}', name="a.json") == ["--from", "trl", "data"]
    assert options("epochs: 1.5\nshare: yes\n", name="a.yaml") == [
        "--epochs", "1.5", "--share=true", "data",
    ]  # fmt: skip
    assert options("", name="a.yml") == ["data"]
    assert expanded(["data"], lambda: known) == ["data"]
    for text, name, message in (
        ("epoch = 2", "a.toml", "'epoch' is no option of this command. Did you mean epochs?"),
        ("epochs = ", "a.toml", "cannot be read"),
        ("a: [", "a.yaml", "cannot be read"),
        ("[]", "a.json", "holds a list, not options by name"),
        ("[epochs]\na = 1", "a.toml", "not nested"),
        ("", "a.txt", "ends in .toml"),
    ):
        with pytest.raises(FormatError, match=message) as raised:
            options(text, name=name)
        assert raised.value.path == tmp_path / name
    with pytest.raises(FormatError, match="--config names no file"):
        expanded(["data", "--config"], lambda: known)


def test_a_file_of_options_trains_as_the_command_line_does(prm, tmp_path, tiny_lm, data):
    config = tmp_path / "how.toml"
    config.write_text(f'base = "{tiny_lm}"\nbatch-size = 4\nepochs = 1\nshare = false\nseed = 1\n')
    code, out, err = prm("train", data, "--config", config, "-o", tmp_path / "a", "--json")
    assert code == 0, err
    assert json.loads(out)["losses"][-1][0] == 6
    by_hand = ("--base", tiny_lm, "--batch-size", 4, "--seed", 1, "--out", tmp_path / "b")
    code, _, err = prm("train", data, *by_hand)
    assert code == 0
    assert ("no live curves" in err) == (find_spec("trackio") is None)
    note = [read_note(tmp_path / name) for name in "ab"]
    assert note[0] == note[1]
    config.write_text("batchsize = 4\n")
    code, _, err = prm("train", data, "--base", tiny_lm, "--config", config)
    assert code == 1
    assert "Did you mean batch-size" in err.replace("\n", " ")


def test_a_dry_run_tells_what_would_be_trained(prm, tmp_path, tiny_lm, data, no_model):
    arguments = ("train", data, "--base", tiny_lm, "--dry-run", "--batch-size", 6)
    code, out, err = prm(*arguments, "--json", "-o", tmp_path / "prm")
    assert code == 0, err
    told = json.loads(out)
    labels = [v for r in records() for v in r.labels.values]
    assert told["labels"] == {"0": labels.count(0), "1": labels.count(1)}
    assert told["solutions"] == 24
    assert told["steps"] == told["passes"] == 4
    assert told["dropped"] == {
        "unlabelled": 0,
        "too_long": 0,
        "cut": 0,
        "cut_labels": 0,
        "disagree": 0,
        "unreadable": 0,
    }
    assert told["tokens_computed"] < told["tokens_expanded"]
    n = told["parameters"]
    assert told["trained"] == n
    assert told["memory"]["weights"] == 4 * n
    assert told["memory"]["optimizer"] == 8 * n
    assert told["memory"]["total"] > 16 * n
    assert len(told["examples"]) == 3
    longest = told["examples"][-1]
    assert longest.count("⟦") == 3
    assert "apples.\n⟦1⟧" in longest or "pens.\n⟦0⟧" in longest
    assert not (tmp_path / "prm").exists()
    code, out, _ = prm(*arguments, "--max-tokens", 60, "--lora-rank", 2)
    assert code == 0
    assert "cut labels" in out
    assert "example 3" in out
    assert [f.name for f in tmp_path.iterdir()] == ["data.jsonl"]


def test_a_dry_run_counts_the_parameters_that_are_trained(prm, tiny_lm, data):
    import torch

    from prmkit.checkpoints import start_token_classifier
    from prmkit.training.adapters import AdapterSettings, adapted

    code, out, _ = prm("train", data, "--base", tiny_lm, "--dry-run", "--json", "--lora-rank", 2)
    assert code == 0
    told = json.loads(out)
    torch.manual_seed(0)
    model = adapted(start_token_classifier(tiny_lm, 2), AdapterSettings(lora_rank=2))
    assert told["parameters"] == sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert told["trained"] == trained < told["parameters"] / 2


def row(labels, completions=("a\n", "b\n"), prompt="q"):
    return {"prompt": prompt, "completions": list(completions), "labels": list(labels)}


def prmkit_row(values, kind="hard"):
    good = records(1)[0].model_dump(mode="json")
    good["trajectory"]["steps"] = good["trajectory"]["steps"][:1] * len(values)
    good["labels"] = {"values": values, "kind": kind}
    return good


BAD = {
    "out of range": ([row([True, False]), row([1.5, 0.2])], ["bad.jsonl:2"]),
    "out of range, our own format": (
        [prmkit_row([1, 0]), prmkit_row([1, 7])],
        ["bad.jsonl:2"],
    ),
    "too many labels": ([row([True, False]), row([True, False, True])], ["bad.jsonl:2"]),
    "not a number": ([row([True, False]), row([float("nan"), 1.0])], ["bad.jsonl:2"]),
    "no positive": ([row([False, False])], ["all labels are 0"]),
    "no negative": ([row([True, True])], ["all labels are 1"]),
    "empty": ([], ["bad.jsonl"]),
    "no labels": (
        [prmkit_row([1, 0]), {**prmkit_row([1]), "labels": None}],
        ["bad.jsonl:2", "has no labels"],
    ),
    "ratings": ([prmkit_row([1, 0, -1], "human")], ["bad.jsonl:1", "--neutral"]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_stops_before_a_model_is_loaded(prm, tmp_path, tiny_lm, no_model, name):
    rows, messages = BAD[name]
    file = tmp_path / "bad.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    code, _, err = prm("train", file, "--base", tiny_lm, "-o", tmp_path / "prm", "--json")
    assert code == 1
    for message in messages:
        assert message in json.loads(err)["error"], err
    assert [f.name for f in tmp_path.iterdir()] == ["bad.jsonl"]


def test_a_tokenizer_without_the_tag_stops_before_a_model_is_loaded(
    prm, tmp_path, tiny_lm, no_model, data
):
    code, _, err = prm("train", data, "--base", tiny_lm, "--kind", "tokens", "-o", tmp_path / "x")
    assert code == 1
    assert "must be one token" in err.replace("\n", " ")


def test_what_is_held_out_chooses_the_weights_and_is_told(prm, tmp_path, tiny_lm, data):
    held_out = tmp_path / "held.jsonl"
    write_records(records(12, seed=100), held_out)
    code, out, err = prm(
        "train", data, "--base", tiny_lm, "-o", tmp_path / "prm", "--eval", held_out,
        "--eval-every", 2, "--epochs", 8, "--batch-size", 8, "--learning-rate", 5e-3, "--json",
    )  # fmt: skip
    assert code == 0, err
    told = json.loads(out)
    lines = [json.loads(x) for x in (tmp_path / "prm" / "metrics.jsonl").read_text().splitlines()]
    curve = {x["step"]: x["eval_first_error_f1"] for x in lines if "eval_first_error_f1" in x}
    assert list(curve) == list(range(2, 25, 2))
    best = max(curve, key=lambda step: (curve[step], -step))
    assert told["step"] == best
    assert told["figures"]["first_error_f1"] == curve[best] > 0.5
    # The finished model's own scorer says the same.
    scorer = DiscriminativeScorer(tmp_path / "prm", device="cpu")
    unseen = records(12, seed=100)
    again = judged(unseen, scorer.score([r.trajectory for r in unseen]))
    assert again == pytest.approx(told["figures"], abs=1e-5)
    assert {"auc_within_problems", "calibration_error", "brier"} <= set(told["figures"])
    card = (tmp_path / "prm" / "README.md").read_text()
    assert f"| first_error_f1 | {curve[best]:.4f} |" in card
    assert "held out: held.jsonl, sha256" in card.replace("\\_", "_")
    code, _, err = prm("train", data, "--base", tiny_lm, "--eval", data, "-o", tmp_path / "x")
    assert code == 1
    assert "data.jsonl:1: this solution is also trained on" in err.replace("\n", " ")
    code, _, err = prm("train", data, "--base", tiny_lm, "--eval-every", 2, "-o", tmp_path / "x")
    assert code == 1
    assert "--eval FILE" in err


def test_the_card_tells_what_was_trained_and_how_to_load_it(prm, tmp_path, tiny_lm, data):
    import hashlib

    out = tmp_path / "my_prm"
    assert prm("train", data, "--base", tiny_lm, "-o", out, "--after-error", "drop")[0] == 0
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert hashlib.sha256(data.read_bytes()).hexdigest() in card
    assert "labels after the first wrong step drop" in card
    labels = [v for r in records() for v in dropped_after(r.labels.values)]
    assert f"| 0 | {labels.count(0)} |\n| 1 | {labels.count(1)} |" in card
    assert "| learning_rate | 0.0001 |" in card.replace("\\_", "_")
    # What it says of loading is true.
    for block in card.split("```python\n")[1:]:
        exec(block.split("```")[0].replace("FOLDER", str(out)), {})


def dropped_after(values):
    first = values.index(0) + 1 if 0 in values else len(values)
    return values[:first]


class Hub:
    """What is asked of the hub."""

    def __init__(self, asked, error=None):
        self.asked, self.error = asked, error

    def create_repo(self, name, **how):
        self.asked.append(("create", name, how))

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        if self.error:
            raise self.error
        self.asked.append(("upload", repo_id, sorted(f.name for f in folder_path.iterdir())))
        return SimpleNamespace(commit_url="https://hub/commit/1")


def test_a_finished_model_is_pushed(prm, tmp_path, tiny_lm, data, monkeypatch):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Hub(asked))
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    arguments = ("train", data, "--base", tiny_lm, "-o", tmp_path / "prm", "--push")
    code, _, err = prm(*arguments, "me/prm")
    assert code == 1
    assert "hf auth login" in err
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    code, _, err = prm(*arguments, "prm")
    assert code == 1
    assert "ORG/NAME" in err
    assert not (tmp_path / "prm").exists()
    code, out, err = prm(*arguments, "me/prm", "--json")
    assert code == 0, err
    assert json.loads(out)["pushed"] == "https://hub/commit/1"
    (_, _, how), (_, name, files) = asked
    assert how == {"private": True, "exist_ok": True}
    assert name == "me/prm"
    assert {"README.md", "model.safetensors", "prmkit.json", "tokenizer.json"} <= set(files)
    # Given again, it is not trained again.
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Hub(asked, OSError("no network")))
    code, _, err = prm(*arguments, "me/prm")
    assert code == 1
    assert "the hub did not take me/prm: no network" in err.replace("\n", " ")
    assert (tmp_path / "prm" / "model.safetensors").is_file()


TRACKER = """
from types import SimpleNamespace

__version__, config, told = "0.43.0", {}, []
context_vars = SimpleNamespace(current_space_id=SimpleNamespace(get=lambda: None))


class Config(dict):
    def update(self, other, allow_val_change):
        super().update(other)


config = Config()


def init(project, name, space_id, **how):
    assert space_id is None
    print("* Trackio project initialized:", project)
    told.append(name)


def log(figures):
    told.append(figures)


def finish():
    print("* Run finished.")
"""


def test_a_tracker_is_told_each_run_by_a_name_of_its_own(prm, tmp_path, tiny_lm, data, monkeypatch):
    """It would add a run to another one of the same name; and what it prints is no result."""
    place = tmp_path / "packages"
    place.mkdir()
    (place / "trackio.py").write_text(TRACKER)
    monkeypatch.syspath_prepend(place)
    import trackio

    names = []
    for number, seed in enumerate((0, 1, 0)):
        out = tmp_path / str(number) / "prm"
        more = ("--seed", seed, "--batch-size", 8, "--out", out, "--json")
        code, found, err = prm("train", data, "--base", tiny_lm, *more)
        assert code == 0, err
        assert json.loads(found)["labels"] > 24
        assert "* Trackio project initialized: prmkit" in err
        assert [one["train/global_step"] for one in trackio.told[1:]] == [1, 2, 3, 3]
        assert trackio.told[1]["train/loss"] == json.loads(found)["losses"][0][1]
        names.append(trackio.told[0])
        trackio.told.clear()
    assert names[0] == names[2] != names[1]
    assert all(name.startswith("prm-") for name in names)


def test_a_tracker_that_is_not_there_is_told_before_the_data_is_read(prm, tmp_path, monkeypatch):
    from prmkit.training import settings

    monkeypatch.setattr(settings, "find_spec", lambda name: None)
    arguments = ("train", tmp_path / "none.jsonl", "--base", "x", "--report-to")
    for tracker, how in (
        ("trackio", "pip install 'prmkit[curves]'"),
        ("wandb", "pip install wandb"),
    ):
        code, _, err = prm(*arguments, tracker)
        assert code == 1
        assert f"report_to is {tracker}, which is not installed" in err.replace("\n", " ")
        assert how in err.replace("\n", " ")


@pytest.mark.parametrize("as_json", [False, True])
def test_of_several_processes_of_a_machine_one_tells_what_all_find(
    prm, tmp_path, tiny_lm, monkeypatch, as_json
):
    from prmkit.cli import train as command
    from prmkit.errors import PrmkitError

    file = tmp_path / "bad.jsonl"
    file.write_text(json.dumps(row([1.5, 0.2])) + "\n")
    monkeypatch.setenv("WORLD_SIZE", "2")
    arguments = ("train", file, "--base", tiny_lm, *["--json"] * as_json)
    for rank, is_told in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        for bad in (file, tmp_path / "none.jsonl"):
            code, out, err = prm(*arguments[:1], bad, *arguments[2:])
            assert (code, out) == (1, "")
            assert (bad.name in err) == is_told, err

    def diverged(*given, **how):
        raise PrmkitError("the loss of step 3 is nan")

    write_records(records(), file)
    monkeypatch.setattr(command, "run", diverged)
    code, _, err = prm(*arguments)
    assert code == 1
    assert "the loss of step 3 is nan" in err

    def stopped(*given, **how):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run", stopped)
    assert prm(*arguments) == (130, "", "")


def test_labels_are_called_what_they_are_of(prm, tmp_path, tiny_lm, data):
    n = sum(len(r.trajectory.steps) for r in records())
    for kind, unit, few in (
        ("step", "labelled steps", True),
        ("implicit", "labelled tokens", False),
    ):
        out = tmp_path / kind
        code, found, err = prm("train", data, "--base", tiny_lm, "--kind", kind, "-o", out)
        assert code == 0, err
        (line,) = (line for line in found.splitlines() if unit in line)
        assert (line.split("│")[2].strip() == str(n)) == few
        card = (out / "README.md").read_text()
        assert f" {unit}\n" in card
        assert f"| label | {unit.split()[1]} |" in card
        scope = {}
        exec(card.split("```python\n")[1].split("```")[0].replace("FOLDER", str(out)), scope)
        assert scope["prm"].score(
            [scope["Trajectory"](problem=scope["problem"], steps=scope["steps"])]
        )


def test_sharing_can_be_left_off(prm, tiny_lm, data):
    arguments = ("train", data, "--base", tiny_lm, "--dry-run", "--json")
    for how, shares in ((), True), (("--share",), True), (("--no-share",), False):
        code, out, err = prm(*arguments, *how)
        assert code == 0, err
        told = json.loads(out)
        assert (told["tokens_computed"] < told["tokens_expanded"]) == shares


def test_a_figure_that_cannot_be_told_is_refused_before_a_model_is_loaded(
    prm, tmp_path, tiny_lm, data, no_model
):
    held_out = tmp_path / "held.jsonl"
    # Nothing is wrong in any of these: there is no pair to rank.
    write_records([r for r in records(40, seed=100) if all(r.labels.values)], held_out)
    how = ("--base", tiny_lm, "--out", tmp_path / "x", "--eval", held_out, "--best-by")
    code, _, err = prm("train", data, *how, "auc_within_problems")
    assert code == 1
    assert "no figure of these held-out solutions is called" in err.replace("\n", " ")
    assert prm("train", data, *how, "brier", "--dry-run")[0] == 0
    code, _, err = prm("train", data, *how, "brier", "--kind", "implicit", "--dry-run")
    assert code == 1
    assert "leave out --eval" in err.replace("\n", " ")


def test_the_reference_may_be_an_embedded_model(prm, tmp_path, data):
    how = ("--base", "embedded/policy", "--kind", "implicit", "--dry-run", "--reference")
    code, _, err = prm("train", data, *how, "embedded/base")
    assert code == 0, err
    code, _, err = prm("train", data, *how, "embedded/bass")
    assert code == 1
    assert "embedded/base" in err
