"""The one exception a user is meant to read, and text from outside as a terminal may get it."""


class UserError(Exception):
    """Bad input from outside: one line saying what is wrong, where, and what to do.

    Commands print the message and exit with code 2; nothing has been overwritten.
    """


def shown(text: object, most: int = 2000) -> str:
    """`text` as one line of at most about `most` characters: its middle is left out where it is longer.

    What does not print (control characters, escapes, direction marks, invisible ones) is written as its
    code, so that a title or a server's reply moves no cursor and forges no line of a log.
    """
    line = str(text).replace("\n", " ")
    if len(line) > most:
        line = f"{line[: most // 2]} ... {line[-most // 2 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
