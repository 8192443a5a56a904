"""The one exception a user is meant to read."""


class UserError(Exception):
    """Bad input from outside: one line saying what is wrong, where, and what to do.

    Commands print the message and exit with code 2; nothing has been overwritten.
    """
