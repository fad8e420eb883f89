import gzip
import os
import subprocess
import sys

import pytest

from prmkit.files import atomic_binary, atomic_text, open_text


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_text_comes_back_exactly(tmp_path, name):
    text = "a\r\nb\rc\nd\u2028e é🙂\n"
    with atomic_text(tmp_path / name) as out:
        out.write(text)
    with open_text(tmp_path / name) as file:
        assert file.read() == text
    with open_text(tmp_path / name) as file:
        assert list(file) == ["a\r\n", "b\rc\n", "d\u2028e é🙂\n"]


def test_gzip_is_seen_by_content_and_equal_content_gives_equal_bytes(tmp_path):
    for name in ("a.gz", "b.gz"):
        with atomic_text(tmp_path / name) as out:
            out.write("x\n")
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == b"x\n"
    (tmp_path / "a.gz").rename(tmp_path / "named_otherwise")
    with open_text(tmp_path / "named_otherwise") as file:
        assert file.read() == "x\n"


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a").write_text("old")

    def interrupted():
        with atomic_binary(tmp_path / "a") as out:
            out.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    (tmp_path / "a").write_text("old")
    code = (
        "import os, sys, signal\n"
        "from prmkit.files import atomic_text\n"
        "with atomic_text(sys.argv[1]) as out:\n"
        "    out.write('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a")], check=False)
    assert ran.returncode == -9
    assert (tmp_path / "a").read_text() == "old"


def test_folders_are_made_and_the_umask_is_heeded(tmp_path):
    with atomic_text(tmp_path / "new" / "a") as out:
        out.write("x")
    assert (tmp_path / "new" / "a").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
