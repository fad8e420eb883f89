"""Environments by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from prmkit.environments.base import Task
from prmkit.environments.catalogue import ENVIRONMENTS, environment
from prmkit.errors import InvalidSetting, MissingDependency, UnknownName


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_name_is_the_one_in_the_problems(name, tmp_path):
    try:
        game = environment(name, tmp_path)()
    except MissingDependency as error:
        pytest.skip(str(error))
    assert game.reset(Task(0)).problem.meta["environment"] == name
    game.close()


def test_what_is_not_there_is_told():
    with pytest.raises(UnknownName, match="babyai"):
        environment("babyay")
    with pytest.raises(InvalidSetting, match="kept in a folder"):
        environment("textworld")


def test_what_is_not_asked_for_is_not_imported():
    code = (
        "import sys; import prmkit.environments.catalogue, prmkit.environments.rollout; "
        "print({'gymnasium', 'minigrid', 'textworld', 'torch', 'httpx2'} & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


@pytest.mark.parametrize("name", ["gymnasium", "minigrid", "textworld", "httpx2", "websockets"])
def test_a_missing_package_names_what_to_install(name):
    module, extra = {
        "gymnasium": ("gym", "agents"),
        "minigrid": ("babyai", "agents"),
        "textworld": ("textworld", "textworld"),
        "httpx2": ("agentgym", "http"),
        "websockets": ("openenv", "agents"),
    }[name]
    use = "" if name != "websockets" else (
        "; from prmkit.endpoint import EndpointSettings; from prmkit.environments.base import Task"
        "; module.OpenEnv(EndpointSettings(url='http://127.0.0.1:9'), None).reset(Task(0))"
    )  # fmt: skip
    code = (
        f"import sys; sys.modules[{name!r}] = None; from importlib import import_module; "
        f"module = import_module('prmkit.environments.{module}'){use}"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert f"pip install 'prmkit[{extra}]'" in ran.stderr
