"""Object stores on this machine: server processes that speak S3's and Google's protocols."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3

BUCKET = "bucket"
KEYS = {
    "AWS_ACCESS_KEY_ID": "stand-in",
    "AWS_SECRET_ACCESS_KEY": "stand-in",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class S3:
    """moto's server with one bucket, seen through Amazon's own client.

    Attributes:
      environment: what a process needs to find it.
    """

    def __init__(self, port: int):
        self.environment = KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        self._client = boto3.client(
            "s3",
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )
        self._client.create_bucket(Bucket=BUCKET)

    def names(self, below: str = "") -> list[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=below)
        return [found["Key"] for page in pages for found in page.get("Contents", [])]

    def get(self, name: str) -> bytes:
        return self._client.get_object(Bucket=BUCKET, Key=name)["Body"].read()

    def put(self, name: str, data: bytes) -> None:
        self._client.put_object(Bucket=BUCKET, Key=name, Body=data)

    def upload(self, folder: str | Path, below: str) -> str:
        """Puts a folder's files there; returns its URL."""
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                self.put(f"{below}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"s3://{BUCKET}/{below}"

    def download(self, below: str, folder: Path) -> Path:
        """All but the lease."""
        for name in self.names(f"{below}/"):
            if name == f"{below}/.lease":
                continue
            path = folder / name.removeprefix(f"{below}/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.get(name))
        return folder


@contextlib.contextmanager
def s3() -> Iterator[S3]:
    """A server of its own, which ends with the block."""
    port = _free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _serving(command, f"http://127.0.0.1:{port}/moto-api/"):
        yield S3(port)


@contextlib.contextmanager
def gcs() -> Iterator[dict[str, str]]:
    """The environment of a process that finds a server of Google's protocol, which ends with the block.

    It ignores the conditions of a write and tells no reader an object's generation, so two writers are not
    seen here. It ends on an empty object. It lists the whole bucket, whatever folder is asked for.
    """
    port = _free_port()
    options = [f"--port={port}", "--host=127.0.0.1", "--in-memory", f"--default-bucket={BUCKET}"]
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", *options]
    with _serving(command, f"http://127.0.0.1:{port}/storage/v1/b/{BUCKET}"):
        yield {
            "TENSORSTORE_GCS_HTTP_URL": f"http://127.0.0.1:{port}",
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "stand-in",
        }


@contextlib.contextmanager
def _serving(command: list[str], url: str) -> Iterator[None]:
    server = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | KEYS
    )
    try:
        for _ in range(600):
            assert server.poll() is None, "the server has ended"
            try:
                urllib.request.urlopen(url, timeout=5)
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
        yield
    finally:
        server.kill()
        server.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
