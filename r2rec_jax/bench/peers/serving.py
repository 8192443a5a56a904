"""The peers' side of result.Peer: a JSON object to begin with, then one for every line that is asked."""

import json
import os
import sys
from collections.abc import Callable

import torch


def begin(hello: dict) -> Callable[[dict], None]:
    """Says `hello`; returns the function that says what follows. All else that is printed goes to stderr."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def say(reply: dict) -> None:
        print(json.dumps(reply), file=replies, flush=True)

    say(hello)
    return say


def wait() -> None:
    """Returns when the next turn is asked for; ends the process when nobody will ask any more."""
    if not sys.stdin.readline():
        sys.exit()


def serve(turn: Callable[[], dict], hello: dict) -> None:
    """Answers every request with `turn()`."""
    say = begin(hello)
    while True:
        wait()
        say(turn())
