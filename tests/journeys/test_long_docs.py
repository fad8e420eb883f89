"""The longer pages of the documentation run, and print what they say."""

from __future__ import annotations

import pytest
from test_docs import LONG, RUN

import fences

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("page", [p for p in RUN if p.name in LONG], ids=lambda page: page.name)
def test_pages_run_and_print_what_they_say(page):
    assert fences.differences(page) == []
