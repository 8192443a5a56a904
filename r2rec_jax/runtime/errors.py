"""Errors for users: UserError, disk errors as one line, and untrusted text made safe for a terminal."""

import errno
import os
import re

# Disk errors: full, over quota, read-only, no permission, file too large, I/O error.
_REFUSALS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EFBIG,
    errno.EIO,
)

CUT = " ... "  # replaces the middle of a long text


class UserError(Exception):
    """Bad input: one line that says what is wrong, where, and what to do.

    Commands print the message and exit with code 2, and nothing has been overwritten. Untrusted text in the
    message becomes one line of visible characters (`shown`).
    """

    def __init__(self, message: object):
        super().__init__(shown(message))


def shown(text: object, most: int = 2000) -> str:
    """`text` as one line of about `most` characters; a longer text loses its middle.

    Unprintable characters (control characters, escapes, direction marks, invisible characters) are written as
    escapes, so that a title or a server's reply cannot move the cursor or forge a log line.
    """
    line = str(text).replace("\n", " ")
    if len(line) > most + len(CUT):  # a text that has been cut is not cut again
        line = f"{line[: most // 2]}{CUT}{line[-(most // 2) :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def disk_fault(error: BaseException | None) -> str:
    """A disk error as text, e.g. "runs/a/config.json: No space left on device"; "" for any other error.

    The function also checks the causes of `error`, because orbax wraps errors of its background threads.
    """
    while error is not None:
        # tensorstore and safetensors give the errno only in the message; numpy drops it.
        number = re.search(r"\bos[ _]error(?:_code=')? ?(\d+)", str(error))
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            text = os.strerror(error.errno)
            return f"{os.fspath(error.filename)}: {text}" if error.filename else text
        if number and int(number[1]) in _REFUSALS:
            return os.strerror(int(number[1]))
        if isinstance(error, OSError) and re.fullmatch(r"\d+ requested and \d+ written", str(error)):
            return f"an array could not be written completely ({error})"
        error = error.__cause__
    return ""
