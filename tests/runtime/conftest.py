import itertools

import pytest

from tests.stand_in import BUCKET, s3

_folders = itertools.count()


@pytest.fixture(scope="session")
def s3_server():
    with s3() as server:
        yield server


@pytest.fixture
def server(s3_server, monkeypatch):
    """A stand-in of S3 that this process finds."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def url(server) -> str:  # noqa: ARG001 (it has to be there)
    """A folder on it that nobody has used."""
    return f"s3://{BUCKET}/folder{next(_folders)}"
