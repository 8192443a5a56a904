"""Folders on an object store, gs://BUCKET/NAME or s3://BUCKET/NAME, through tensorstore.

Credentials are found as the store's own tools find them. AWS_ENDPOINT_URL and TENSORSTORE_GCS_HTTP_URL name
another server.
"""

import dataclasses
import os
import re

import tensorstore as ts

from r2rec_jax.runtime.copies import URL
from r2rec_jax.runtime.errors import UserError, shown

ABSENT = b"\x02"  # tensorstore's generation of an object that is not there
# A server that does not answer is given up after about this: 0.5 + 1 + 2 + 4 s.
RETRIES = {"max_retries": 4, "initial_delay": "500ms", "max_delay": "4s"}


class StoreError(UserError):
    """The store did not do what it was asked; trying again may help."""


@dataclasses.dataclass(frozen=True)
class Found:
    """An object, or None for `data` where it is not there or still of the generation asked about.

    `generation` changes whenever the content does.
    """

    data: bytes | None
    generation: bytes


class Store:
    """The objects below one URL, by their names relative to it.

    Every method raises StoreError, a line with the URL and what the server said.
    """

    def __init__(self, url: str):
        """Raises UserError for a URL without a folder in the bucket."""
        self.url = url.rstrip("/")
        match = URL.fullmatch(self.url)
        if match is None or not match[3]:
            raise UserError(f"{url} names no folder of a bucket: write gs://BUCKET/NAME or s3://BUCKET/NAME")
        scheme, bucket, path = match.groups()
        spec = {"driver": "gcs" if scheme == "gs" else "s3", "bucket": bucket, "path": f"{path}/"}
        spec["context"] = {f"{spec['driver']}_request_retries": RETRIES}
        if scheme == "s3":
            spec |= _s3_settings()
        try:
            self._objects = ts.KvStore.open(spec).result()
        except ValueError as error:
            raise self._fault(error) from error

    def names(self) -> list[str]:
        """Every object's name but hidden ones, and what a browser leaves for folders.

        Raises UserError for one that would leave the folder as a file.
        """
        found = [name.decode(errors="replace") for name in self._ask(self._objects.list())]
        names = [name for name in found if not name.endswith("/") and not hidden(name)]
        for name in names:
            if not all(name.split("/")) or "\\" in name or not name.isprintable():
                raise UserError(f"{self.url} holds an object {shown(name, 200)!r}, which is no file's name")
        return sorted(names)

    def get(self, name: str, unless: bytes = b"") -> Found:
        """The object in memory; `unless` it is still of that generation."""
        found = self._ask(self._objects.read(name, **({"if_not_equal": unless} if unless else {})))
        return Found(found.value if found.state == "value" else None, found.stamp.generation)

    def put(self, name: str, data: bytes, instead_of: bytes = b"") -> bytes | None:
        """Writes the object whole; returns its generation.

        `instead_of`: only if it is of that generation, ABSENT if none is there; else returns None.
        """
        condition = {"if_equal": instead_of} if instead_of else {}
        return self._ask(self._objects.write(name, data, **condition)).generation or None

    def delete(self, name: str) -> None:
        """Removes the object, if it is there."""
        self._ask(self._objects.write(name, None))

    def _ask(self, future):
        try:
            return future.result()
        except ValueError as error:  # tensorstore's for whatever a server says, or does not
            raise self._fault(error) from error

    def _fault(self, error: ValueError) -> StoreError:
        said = shown(re.split(r"\s*\[(?:http|curl|x-|source|tensorstore)", str(error))[0], 200)
        return StoreError(
            f"{self.url} cannot be reached ({said}): look at the bucket's name, the credentials and the "
            "network, and run the same command again"
        )


def hidden(name: str) -> bool:
    """Whether a file of that relative name stays where it is: locks, and what is not yet whole."""
    return any(part.startswith(".") for part in name.split("/"))


def _s3_settings() -> dict:
    """What tensorstore does not take from the environment itself."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    settings = {"endpoint": endpoint, "aws_region": region or "us-east-1"} if endpoint else {}
    if region:
        settings["aws_region"] = region
    if "AWS_ACCESS_KEY_ID" in os.environ:  # else it complains about a missing ~/.aws
        settings["aws_credentials"] = {"type": "environment"}
    return settings
