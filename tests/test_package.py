"""The public face: names, laziness."""

import subprocess
import sys

import pytest

import prmkit


def fresh(code: str) -> str:
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ran.stdout.strip()


def test_importing_loads_neither_torch_nor_transformers():
    loaded = "print([m for m in ('torch', 'transformers', 'numpy', 'pyarrow') if m in sys.modules])"
    assert fresh(f"import sys, prmkit; {loaded}") == "[]"
    assert fresh(f"import sys, prmkit; prmkit.read_records; prmkit.splitter; {loaded}") == "[]"


@pytest.mark.parametrize("name", prmkit.__all__)
def test_every_public_name_is_there_and_documented(name):
    found = getattr(prmkit, name)
    assert name in dir(prmkit)
    assert found.__doc__


def test_the_tables_agree():
    assert list(prmkit.__all__) == sorted(prmkit.__all__)
    assert set(prmkit._HOMES) == set(prmkit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = prmkit.nothing
