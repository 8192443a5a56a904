"""Where raw data come from, under what terms, and whether an archive is the published one."""

import dataclasses
import hashlib
import shutil
import zipfile
import zlib
from pathlib import Path

from absl import logging

from r2rec_jax.runtime.errors import UserError

MOVIELENS_LICENCE = "research use, no redistribution; cite Harper and Konstan 2015 (GroupLens README)"
AMAZON_LICENCE = "collected for research, no licence stated; cite {cite}"


@dataclasses.dataclass(frozen=True)
class Archive:
    """A zip of GroupLens; md5 is that of its `.zip.md5` file, '' where the archive changes."""

    url: str
    md5: str
    files: tuple[str, ...]

    @property
    def hint(self) -> str:
        return f"fetch it with `curl -fLO -C - {self.url}` (the same command resumes)"


_CSV = ("ratings.csv", "movies.csv")
_SITE = "https://files.grouplens.org/datasets/movielens/"
MOVIELENS = {
    "ml-100k": Archive(
        f"{_SITE}ml-100k.zip", "0e33842e24a9c977be4e0107933c0723", ("u.data", "u.item", "u.user")
    ),
    "ml-1m": Archive(
        f"{_SITE}ml-1m.zip", "c4d9eecfca2ab87c1945afe126590906", ("ratings.dat", "movies.dat", "users.dat")
    ),
    "ml-20m": Archive(f"{_SITE}ml-20m.zip", "cd245b17a1ae2cc31bb14903e1204af3", _CSV),
    "ml-25m": Archive(f"{_SITE}ml-25m.zip", "6b51fb2759a8657d3bfcbfc42b592ada", _CSV),
    "ml-32m": Archive(f"{_SITE}ml-32m.zip", "", _CSV),
    "ml-latest-small": Archive(f"{_SITE}ml-latest-small.zip", "", _CSV),
}


def unpacked(raw: str | Path, release: str, scratch: Path) -> Path:
    """The folder with a MovieLens release: `raw` itself, or what is unpacked from it if it is a .zip.

    Checksums that came with the data are compared: the archive's MD5 where it is published, and a
    `checksums.txt` beside the files.

    Raises:
      UserError: another checksum, or an archive that is damaged or lacks a file.
    """
    raw, archive = Path(raw), MOVIELENS[release]
    if raw.suffix == ".zip":
        folder = scratch / release
        folder.mkdir(parents=True)
        _unpack(raw, archive, folder)
        return folder
    if (listed := raw / "checksums.txt").is_file():
        _compare(listed, archive)
    return raw


def _unpack(path: Path, archive: Archive, folder: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing: {archive.hint}")
    if archive.md5:
        if (found := _md5(path)) != archive.md5:
            raise UserError(f"{path} has MD5 {found}, not the published {archive.md5}: {archive.hint}")
        logging.info("%s: MD5 as published", path)
    else:
        logging.warning("%s: no checksum known to compare with", path)
    try:
        with zipfile.ZipFile(path) as file:
            for name in archive.files:
                inside = [entry for entry in file.namelist() if entry.rpartition("/")[2] == name]
                if len(inside) != 1:
                    raise UserError(f"{path} holds {len(inside)} files {name}, not one: {archive.hint}")
                # Under our own name: what a name in an archive says is not a path to write to.
                with file.open(inside[0]) as packed, open(folder / name, "wb") as out:
                    shutil.copyfileobj(packed, out)
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, NotImplementedError, EOFError) as error:
        raise UserError(f"{path} cannot be unpacked ({error}): {archive.hint}") from error


def _compare(listed: Path, archive: Archive) -> None:
    """Compares files with lines of `md5  name`, as newer releases bring them."""
    for line in listed.read_text(encoding="utf-8", errors="replace").splitlines():
        md5, _, name = line.partition(" ")
        name = name.strip().lstrip("*")
        path = listed.parent / name
        if name in archive.files and path.is_file() and _md5(path) != md5.lower():
            raise UserError(f"{path} has another MD5 than {listed} says: fetch it again")


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
