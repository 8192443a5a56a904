"""What a folder was made from."""

import os

import pytest

from r2rec_jax.runtime import build_stamp
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.lock import locked


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    (folder / "in").mkdir(parents=True)
    (folder / "a").write_text("1")
    (folder / "in" / "b").write_text("2")
    return folder


@pytest.fixture
def folder(tmp_path, raw):
    out = tmp_path / "out"
    (out / "params").mkdir(parents=True)
    (out / "params" / "0").write_bytes(b"12")
    build_stamp.record(out, build_stamp.digest({"dtype": "x"}, raw))
    return out


def test_a_digest_is_of_settings_and_of_every_file(raw, tmp_path):
    def digest(**settings) -> str:
        return build_stamp.digest({"k": 1, "sizes": [1, 2]} | settings, raw)

    first = digest()
    assert digest() == first and digest(k=1) == first
    found = {first, digest(k=True), digest(sizes=[2, 1]), build_stamp.digest({"k": 1, "sizes": [1, 2]})}
    (raw / "in" / "b").write_text("22")
    found.add(digest())
    os.utime(raw / "a", ns=(0, 0))
    found.add(digest())
    (raw / "a").rename(raw / "c")
    found.add(digest())
    raw.rename(tmp_path / "elsewhere")
    found.add(digest())  # none is left
    assert len(found) == 8 - 1 and digest() == build_stamp.digest({"k": 1, "sizes": [1, 2]})


def test_a_file_alone_is_an_input_too(raw):
    first = build_stamp.digest({}, raw / "a")
    os.utime(raw / "a", ns=(0, 0))
    assert build_stamp.digest({}, raw / "a") != first != build_stamp.digest({})


def test_a_folder_is_made_while_it_is_as_it_was(folder, raw, tmp_path):
    made_from = build_stamp.digest({"dtype": "x"}, raw)
    assert build_stamp.is_made(folder, made_from)
    assert not build_stamp.is_made(folder, build_stamp.digest({"dtype": "y"}, raw))
    assert not build_stamp.is_made(tmp_path / "none", made_from)
    (folder / "params" / "0").write_bytes(b"123")
    assert not build_stamp.is_made(folder, made_from)
    (folder / "params" / "0").unlink()
    assert not build_stamp.is_made(folder, made_from)


@pytest.mark.parametrize("said", ["", "{", "[]", "null", '{"from": 1}', "[" * 10_000])
def test_a_damaged_record_is_none(folder, raw, said):
    (folder / build_stamp.RECORD).write_text(said)
    assert not build_stamp.is_made(folder, build_stamp.digest({"dtype": "x"}, raw))


def test_what_killed_writers_left_is_cleared_or_put_back(folder, raw, tmp_path):
    scratch = tmp_path / ".out.abcd1234.tmp"
    scratch.mkdir()
    folder.rename(scratch / "old")  # between the two renames of a replacement
    assert build_stamp.is_made(folder, build_stamp.digest({"dtype": "x"}, raw))
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "out"}


def test_a_writer_at_work_is_waited_for(folder, raw, tmp_path):
    with locked(tmp_path / ".out.lock", "out"), pytest.raises(UserError, match="in use by another run"):
        build_stamp.is_made(folder, build_stamp.digest({"dtype": "x"}, raw))
