import pytest

from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.paths import new_folder, write_atomic


@pytest.mark.parametrize("content", ["é\n", b"\x00\xff"])
def test_write_atomic_makes_parents_and_leaves_one_file(tmp_path, content):
    path = tmp_path / "a" / "b.txt"
    write_atomic(path, "old")
    write_atomic(path, content)
    assert path.read_bytes() == (content.encode() if isinstance(content, str) else content)
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "b.txt"
    write_atomic(path, "old")

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_new_folder_appears_whole(tmp_path):
    path = tmp_path / "deep" / "out"
    with new_folder(path, overwrite=False) as fresh:
        (fresh / "x").write_text("1")
        assert not path.exists()
    assert (path / "x").read_text() == "1"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_folder_leaves_nothing(tmp_path):
    with pytest.raises(KeyError), new_folder(tmp_path / "out", overwrite=False):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_needs_overwrite(tmp_path):
    path = tmp_path / "out"
    path.mkdir()
    (path / "old").write_text("1")
    with pytest.raises(UserError, match="--overwrite"), new_folder(path, overwrite=False):
        pytest.fail("the block must not run")
    with pytest.raises(KeyError), new_folder(path, overwrite=True):
        raise KeyError
    assert (path / "old").exists()
    with new_folder(path, overwrite=True) as fresh:
        (fresh / "new").write_text("2")
    assert [p.name for p in path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_never_replaced_by_a_folder(tmp_path):
    path = tmp_path / "out"
    path.write_text("mine")
    with pytest.raises(UserError, match="file"), new_folder(path, overwrite=True):
        pytest.fail("the block must not run")
    assert path.read_text() == "mine"
