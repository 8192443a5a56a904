"""Folders on an object store, and where their copies are on this machine.

The program reads and writes the copies; what it records and says names the URLs, which hold on every machine.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

URL = re.compile(r"(gs|s3)://([^/]+)(?:/(.*))?")

_urls: dict[str, str] = {}  # of the copies that this process has asked for


def is_url(value: object) -> bool:
    """Whether it names a place on an object store."""
    return isinstance(value, str) and URL.match(value) is not None


def copy_of(url: str, purpose: str) -> Path:
    """Where the copy of `url` is, or will be. What is read and what is written have copies of their own."""
    url = url.rstrip("/")
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute()
    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    path = caches / "r2rec_jax" / purpose / digest / url.rpartition("/")[2]
    _urls[str(path)] = url
    return path


def url_of(path: str | Path) -> str | None:
    """The URL of a copy or of what is in it; None for any other path."""
    name = named(str(path))
    return name if is_url(name) else None


def named(value: Any) -> Any:
    """A text, or a tree of dicts and lists, with every copy's path replaced by its URL."""
    if isinstance(value, dict):
        return {name: named(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(named(one) for one in value)
    if isinstance(value, str):
        for path, url in _urls.items():
            value = value.replace(path, url)
    return value
