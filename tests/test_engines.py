"""Batches in a folder: what was finished is kept, what changed is refused."""

import random

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prmkit import engines
from prmkit.engines import Batches, EngineSettings, Tables, is_table, plan_batches
from prmkit.errors import FormatError, InvalidSetting, RunFolderError
from prmkit.formats import write_records
from prmkit.formats.containers import write_rows
from ray_workers import records


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"actors": 2}, "actors has no meaning for the engine local"),
        ({"address": "auto"}, "address has no meaning for the engine local"),
        ({"engine": "ray", "actors": 0}, "actors is 0; it must be at least 1"),
        ({"engine": "ray", "batch_size": 0}, "batch_size is 0; it must be at least 1"),
        ({"engine": "ray", "gpus_per_actor": 1.5}, "above 1 it must be a whole number"),
        ({"engine": "ray", "cpus_per_actor": -1}, "cpus_per_actor is -1; it must be at least 0"),
    ],
)
def test_settings_without_meaning_are_refused(given, message):
    with pytest.raises(InvalidSetting, match=message):
        EngineSettings(**given)


def test_a_batch_is_what_is_computed_together():
    assert EngineSettings().batch(32) == 32
    assert EngineSettings(engine="ray", batch_size=5).batch(32) == 5
    assert EngineSettings(engine="ray", batch_size=96).batch(32, whole=True) == 96
    with pytest.raises(InvalidSetting, match="give a multiple of 32"):
        EngineSettings(engine="ray", batch_size=40).batch(32, whole=True)


@settings(max_examples=20)
@given(n=st.integers(0, 40), size=st.integers(1, 9), table=st.booleans(), per=st.integers(1, 7))
def test_batches_are_the_records_in_order(tmp_path_factory, n, size, table, per):
    """From a copy, or from several tables whose groups of rows are cut otherwise."""
    folder, given = tmp_path_factory.mktemp("b"), records(n)
    source = iter(given)
    if table:
        paths = (folder / "1.parquet", folder / "2.parquet")
        for path, half in zip(paths, (given[: n // 3], given[n // 3 :]), strict=True):
            write_records(half, path)
            pq.write_table(pq.read_table(path), path, row_group_size=per)
        assert all(is_table(path) for path in paths)
        source = Tables(paths)
    batches = plan_batches(source, folder / "parts", size, {})
    there = Batches(folder / "parts")
    read = [there.read(k) for k in range(len(there))]
    assert [record for batch in read for record in batch] == given
    assert [len(batch) for batch in read] == [min(size, n - at) for at in range(0, n, size)]
    order = list(range(len(batches)))
    random.Random(n).shuffle(order)
    for k in order:
        batches.finish(k, read[k] * 2)
    assert list(batches.results()) == [r for batch in read for r in batch * 2]
    assert batches.open_ones() == []


def test_many_batches_are_in_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "_BATCHES_A_FILE", 3)
    given = records(20)
    batches = plan_batches(iter(given), tmp_path / "parts", 2, {})
    assert len(list((tmp_path / "parts" / "input").iterdir())) == 4
    assert [r for k in range(10) for r in batches.read(k)] == given


def test_finished_batches_are_found_again(tmp_path):
    given = records(10)
    plan_batches(iter(given), tmp_path / "parts", 4, {"seed": 1}).finish(1, given[4:8])
    again = plan_batches(iter(given), tmp_path / "parts", 4, {"seed": 1})
    assert again.open_ones() == [0, 2]
    with pytest.raises(RunFolderError, match="the records 1 to 4 are not finished"):
        list(again.results())


def test_a_run_of_something_else_is_refused(tmp_path):
    given, folder = records(10), tmp_path / "parts"
    plan_batches(iter(given), folder, 4, {"seed": 1, "model": "a"})
    for source, size, about, different in [
        (given, 4, {"seed": 2, "model": "a"}, "seed"),
        (given, 5, {"seed": 1, "model": "a"}, "batch_size, 4 there, 5 now"),
        (given[::-1], 4, {"seed": 1, "model": "a"}, "the records"),
        (given[:9], 4, {"seed": 1, "model": "b"}, "model, the records"),
    ]:
        with pytest.raises(RunFolderError, match=rf"\(different: {different}\)"):
            plan_batches(iter(source), folder, size, about)


def test_a_table_that_was_changed_is_another_one(tmp_path):
    path = tmp_path / "a.parquet"
    write_records(records(3), path)
    plan_batches(Tables((path,)), tmp_path / "parts", 2, {})
    write_records(records(3)[::-1], path)
    with pytest.raises(RunFolderError, match="the records"):
        plan_batches(Tables((path,)), tmp_path / "parts", 2, {})


def test_a_folder_that_others_do_not_see_is_told(tmp_path):
    with pytest.raises(RunFolderError, match="must be on storage that all of them share"):
        Batches(tmp_path)


def test_a_copy_that_broke_off_is_made_again(tmp_path):
    def broken():
        yield from records(5)
        raise FormatError("no JSON", "data.jsonl", 6)

    with pytest.raises(FormatError, match=r"data\.jsonl:6: no JSON"):
        plan_batches(broken(), tmp_path / "parts", 2, {})
    batches = plan_batches(iter(records(8)), tmp_path / "parts", 2, {})
    assert [r for k in range(4) for r in batches.read(k)] == records(8)


def test_only_tables_with_small_groups_are_read_where_they_are(tmp_path, monkeypatch):
    path, other = tmp_path / "a.parquet", tmp_path / "b.parquet"
    write_records(records(9), path)
    assert is_table(path)
    monkeypatch.setattr(engines, "_ROWS_A_GROUP", 8)
    assert not is_table(path)
    with write_rows(other) as put:
        put({"question": "q"})
    assert not is_table(other)
    (tmp_path / "c.jsonl").write_text("{}")
    assert not is_table(tmp_path / "c.jsonl")
    assert not is_table(tmp_path / "none.parquet")
