"""The commands as they are typed, in this process."""

from __future__ import annotations

import pytest

from prmkit.cli import main


@pytest.fixture
def prm(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return run
