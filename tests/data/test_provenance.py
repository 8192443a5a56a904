import dataclasses
import hashlib
import zipfile

import pytest

from r2rec_jax.data import provenance
from r2rec_jax.runtime.errors import UserError


@pytest.fixture
def archive(make_raw, tmp_path, monkeypatch):
    """ml-25m.zip with the files of a small release, and its MD5 as the published one."""
    raw = make_raw("ml-25m")
    path = tmp_path / "ml-25m.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in ("ratings.csv", "movies.csv"):
            file.write(raw.ratings.with_name(name), f"../../ml-25m/{name}")
        file.writestr("ml-25m/README.txt", "hello")
    publish(monkeypatch, path)
    return raw, path


def publish(monkeypatch, path):
    known = dataclasses.replace(
        provenance.MOVIELENS["ml-25m"], md5=hashlib.md5(path.read_bytes()).hexdigest()
    )
    monkeypatch.setitem(provenance.MOVIELENS, "ml-25m", known)


def test_the_archive_reads_like_its_folder(archive):
    raw, path = archive
    expected, counts = raw.read()
    raw.config.raw = str(path)
    dataset, again = raw.read()
    assert dataset.interactions.time.tolist() == expected.interactions.time.tolist()
    assert counts == again


@pytest.mark.parametrize("damage", ["other", "cut", "lacking", "absent", "no zip"])
def test_an_archive_that_is_not_the_published_one(archive, monkeypatch, damage):
    raw, path = archive
    content, says = path.read_bytes(), "cannot be unpacked"
    if damage == "other":
        path.write_bytes(content + b"x")
        says = "not the published"
    elif damage == "cut":
        path.write_bytes(content[:-30])
    elif damage == "lacking":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("ml-25m/ratings.csv", "")
        says = "contains 0 files movies.csv"
    elif damage == "absent":
        path.unlink()
        says = "is missing"
    else:
        path.write_bytes(b"hello")
    if damage in ("cut", "lacking", "no zip"):
        publish(monkeypatch, path)
    raw.config.raw = str(path)
    with pytest.raises(UserError, match=says) as error:
        raw.read()
    assert "curl" in str(error.value) and "\n" not in str(error.value)


def test_checksums_beside_the_files(make_raw):
    raw = make_raw("ml-25m")
    listed = raw.ratings.with_name("checksums.txt")
    md5 = hashlib.md5(raw.ratings.read_bytes()).hexdigest()
    listed.write_text(f"{md5}  ratings.csv\n00  ../movies.csv\n00 absent.csv\nnonsense\n")
    raw.read()
    listed.write_text(f"{md5[::-1]} *ratings.csv\n")
    with pytest.raises(UserError, match="does not have the MD5"):
        raw.read()
