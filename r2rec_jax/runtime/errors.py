"""What a user is meant to read: the one exception with a line for them, what a disk refuses, and text from
outside as a terminal may get it."""

import errno
import os
import re

# What a disk says no with: full, over quota, read-only, not ours, past a limit, broken.
_REFUSALS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EFBIG,
    errno.EIO,
)

CUT = " ... "  # in place of the middle of a long text


class UserError(Exception):
    """Bad input from outside: one line saying what is wrong, where, and what to do.

    Commands print the message and exit with code 2; nothing has been overwritten. Whatever the message quotes
    from outside, it is one line of visible text (`shown`).
    """

    def __init__(self, message: object):
        super().__init__(shown(message))


def shown(text: object, most: int = 2000) -> str:
    """`text` as one line of at most about `most` characters: its middle is left out where it is longer.

    What does not print (control characters, escapes, direction marks, invisible ones) is written as its
    code, so that a title or a server's reply moves no cursor and forges no line of a log.
    """
    line = str(text).replace("\n", " ")
    if len(line) > most + len(CUT):  # so that what has been cut is not cut again
        line = f"{line[: most // 2]}{CUT}{line[-(most // 2) :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def disk_fault(error: BaseException | None) -> str:
    """What the disk refused, as in "runs/a/config.json: No space left on device"; "" for any other error.

    Looks at `error` and at what caused it: orbax reports from its background threads in errors of its own.
    """
    while error is not None:
        # tensorstore and safetensors, which are not written in Python, put the number into their text;
        # numpy has lost it.
        number = re.search(r"\bos[ _]error(?:_code=')? ?(\d+)", str(error))
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            text = os.strerror(error.errno)
            return f"{os.fspath(error.filename)}: {text}" if error.filename else text
        if number and int(number[1]) in _REFUSALS:
            return os.strerror(int(number[1]))
        if isinstance(error, OSError) and re.fullmatch(r"\d+ requested and \d+ written", str(error)):
            return f"an array could not be written whole ({error})"
        error = error.__cause__
    return ""
