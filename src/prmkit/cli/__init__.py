"""The command ``prm``. Each command is a file here; its options are those of its settings."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from cyclopts import App, Parameter

from prmkit import __version__
from prmkit.cli.configs import expanded
from prmkit.cli.console import FAILED, INTERRUPTED, STANDARD_INPUT, failed, interrupted
from prmkit.errors import PrmkitError

app = App(
    name="prm",
    version=__version__,
    help="Process reward models: label steps, train, score, evaluate, search, reinforce.",
    help_epilogue=(
        "Exit codes: 0 done; 1 an error, told on standard error; 2 wrong usage; 3 done, but some "
        "rows were skipped or solutions not scored; 130 interrupted. An interrupted command goes "
        "on where it was when it is given again."
    ),
    default_parameter=Parameter(negative=""),
)
for _name, _help in {
    "quickstart": "The whole road in the embedded world: sample, label, train, score, report.",
    "score": "Score the steps of solutions, and mark the first suspected error.",
    "evaluate": "Measure a model, or scores that are there, on a benchmark.",
    "evaluate-search": "Compare searches at equal cost (also: prm evaluate search).",
    "compare": "Set evaluations side by side, with paired differences and tests.",
    "search": "Search solutions of problems, guided by step scores, within a budget.",
    "rl": "Teach a policy, or an agent in its environment, by outcomes and step scores.",
    "play": "Play episodes of an environment, and choose among them by the scores of their turns.",
    "sample": "Sample solutions of problems from a language model.",
    "label": "Label the steps of solutions by rollouts.",
    "merge": "Merge ratings that several annotators gave, and tell how they agree.",
    "recut": "Cut solutions into other steps, where a model is unsure.",
    "train": "Train a discriminative PRM on labelled steps.",
    "convert": "Convert a file of labelled steps from one format to another.",
    "calibrate": "Fit a map from a model's scores to probabilities, and keep it beside the model.",
    "models": "List the known reward models and families, and tell how to serve one.",
    "convert-model": "Convert a checkpoint from one layout to another without loss.",
    "doctor": "Tell what is installed, which devices there are, and what is missing.",
}.items():
    _module = _name.replace("-", "_")
    app.command(f"prmkit.cli.{_module}:{_module}", name=_name, help=_help)


def _options_of_train() -> set[str]:
    known = app["train"].assemble_argument_collection()
    return {name for argument in known for name in argument.names if name.startswith("--")}


def _tells(error: BaseException) -> bool:
    """Whether this process tells an error.

    Of several that torchrun started on a machine all find the same faults in data and settings, and
    the first one tells them. What goes wrong in training, each tells that it happens to.
    """
    return os.environ.get("LOCAL_RANK", "0") == "0" or type(error) is PrmkitError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code."""
    given = sys.argv[1:] if arguments is None else arguments
    # To the parser a lone "-" is an option.
    tokens = [STANDARD_INPUT if token == "-" else token for token in given]
    as_json = "--json" in tokens
    # Tries of a request that come to a good end are nobody's concern.
    logging.getLogger("stamina").setLevel(logging.ERROR)
    try:
        if tokens[:2] == ["evaluate", "search"]:
            tokens = ["evaluate-search", *tokens[2:]]
        if tokens[:1] == ["train"]:
            tokens = ["train", *expanded(tokens[1:], _options_of_train)]
        command, bound, _ = app.parse_args(tokens)
        code = command(*bound.args, **bound.kwargs)
    except PrmkitError as error:
        code = failed(error, as_json) if _tells(error) else FAILED
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # The reader, such as `head`, has seen enough; nothing more can be told to it.
            sys.stderr.close()
            code = 0
        else:
            code = failed(error, as_json) if _tells(error) else FAILED
    except KeyboardInterrupt as error:
        code = interrupted(as_json) if _tells(error) else INTERRUPTED
    sys.exit(code if isinstance(code, int) else 0)
