"""The peer's side of result.Peer: writes one JSON object at the start and one for every request line."""

import json
import os
import sys
from collections.abc import Callable

import torch


def begin(hello: dict) -> Callable[[dict], None]:
    """Writes `hello` and returns a function that writes replies. All other output goes to stderr."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def write(reply: dict) -> None:
        print(json.dumps(reply), file=replies, flush=True)

    write(hello)
    return write


def wait() -> None:
    """Waits for the next request. Exits the process if the other side has closed the pipe."""
    if not sys.stdin.readline():
        sys.exit()


def serve(turn: Callable[[], dict], hello: dict) -> None:
    """Replies to every request with the result of `turn()`."""
    write = begin(hello)
    while True:
        wait()
        write(turn())
