"""Tiny checkpoints of every family, made once."""

from __future__ import annotations

import pytest

from prmkit.scorers.discriminative import DiscriminativeScorer
from prmkit.scorers.families import DISCRIMINATIVE
from prmkit.testing import tiny_checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    made = {}

    def get(family):
        if family not in made:
            made[family] = tiny_checkpoint(family, tmp_path_factory.mktemp(family), seed=3)
        return made[family]

    return get


@pytest.fixture(scope="session")
def scorer_of(tiny):
    made = {}

    def get(family, **settings):
        key = (family, *settings.items())
        if key not in made:
            made[key] = DiscriminativeScorer(
                tiny(family), family=DISCRIMINATIVE[family], device="cpu", **settings
            )
        return made[key]

    return get
