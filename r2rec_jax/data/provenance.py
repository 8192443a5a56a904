"""Download URLs, licences and checksums of raw data."""

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
    """A GroupLens zip. md5 is the one in its published `.zip.md5` file, '' if the archive is updated."""

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
    """The folder of a MovieLens release: `raw` itself, or a folder in `scratch` if `raw` is a .zip.

    Verifies the MD5 of the archive if it is published, and of the files listed in a `checksums.txt`.

    Raises:
      UserError: a checksum differs, or the archive is damaged or lacks a file.
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
        if (actual := _md5(path)) != archive.md5:
            raise UserError(f"{path} has MD5 {actual}, not the published {archive.md5}: {archive.hint}")
        logging.info("%s: MD5 matches the published one", path)
    else:
        logging.warning("%s: not verified, because no checksum is published", path)
    try:
        with zipfile.ZipFile(path) as file:
            for name in archive.files:
                inside = [entry for entry in file.namelist() if entry.rpartition("/")[2] == name]
                if len(inside) != 1:
                    raise UserError(f"{path} contains {len(inside)} files {name}, not one: {archive.hint}")
                # Written under our own name, because names in an archive are not trusted as paths.
                with file.open(inside[0]) as packed, open(folder / name, "wb") as out:
                    shutil.copyfileobj(packed, out)
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, NotImplementedError, EOFError) as error:
        raise UserError(f"{path} cannot be unpacked ({error}): {archive.hint}") from error


def _compare(listed: Path, archive: Archive) -> None:
    """Verifies files against the lines `md5  name` of a checksums file, which newer releases include."""
    for line in listed.read_text(encoding="utf-8", errors="replace").splitlines():
        md5, _, name = line.partition(" ")
        name = name.strip().lstrip("*")
        path = listed.parent / name
        if name in archive.files and path.is_file() and _md5(path) != md5.lower():
            raise UserError(f"{path} does not have the MD5 listed in {listed}: fetch it again")


def _md5(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()
