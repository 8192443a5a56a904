"""Folders on object stores at a command's hand: copies on this machine, and the workdir's put back there."""

import contextlib
import importlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from r2rec_jax.runtime.copies import copy_of, is_url, url_of
from r2rec_jax.runtime.errors import UserError

REFUSAL = "this command takes no object store; copy the folder from there"


@contextlib.contextmanager
def at_hand(
    config: ConfigDict, workdir: str | None, supported: bool
) -> Iterator[tuple[ConfigDict, Path | None]]:
    """Yields the config and the workdir with every URL replaced by where its copy is on this machine.

    The workdir is fetched at the start, published while the block runs, and complete on the store after it.
    What the config names is fetched by `launch.inputs.require`.

    Raises:
      UserError: the command does not support URLs, the store cannot be reached, another run is at work in the
        workdir, or processes of several machines share it.
    """
    fields = dict(_urls(config))
    if fields or is_url(workdir):
        if not supported:
            name, url = next(iter(fields.items())) if fields else ("workdir", workdir)
            raise UserError(f"--{name}={url}: {REFUSAL}")
        config = config.copy_and_resolve_references()
        _replace(config)
    if not is_url(workdir):
        yield config, Path(workdir) if workdir else None
        return
    copy = copy_of(workdir, "workdirs")
    with _published(copy):
        yield config, copy


@contextlib.contextmanager
def _published(copy: Path) -> Iterator[None]:
    # Not at the top: they import JAX and tensorstore, which take a second, and most runs need neither here.
    distributed = importlib.import_module("r2rec_jax.runtime.distributed")
    mirror = importlib.import_module("r2rec_jax.runtime.mirror")
    if len(set(distributed.gather(socket.gethostname()))) > 1:
        raise UserError(
            f"--workdir={url_of(copy)}: processes of several machines need a folder that all of them see"
        )
    held = []
    distributed.on_first(lambda: held.append(mirror.Published(url_of(copy), copy, _end)))
    try:
        yield
    except BaseException:
        for one in held:
            try:
                one.close()
            except UserError as error:
                logging.error("%s", error)
        raise
    for one in held:
        one.close()


def _end(line: str) -> None:
    """Ends the process from whatever thread has found out that it must."""
    print("error:", line, file=sys.stderr, flush=True)
    os._exit(2)


def _urls(config: ConfigDict, prefix: str = "config.") -> Iterator[tuple[str, str]]:
    """(dotted name, URL) of the config's fields that are on an object store."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _urls(value, f"{prefix}{name}.")
        elif is_url(value):
            yield f"{prefix}{name}", value


def _replace(config: ConfigDict) -> None:
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            _replace(value)
        elif is_url(value):
            config[name] = str(copy_of(value, "inputs"))
