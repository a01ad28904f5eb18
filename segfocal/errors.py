"""Mistakes of the user, told apart from mistakes of the program."""


class UserError(Exception):
    """Something the user can mend: printed as it is, without a traceback; the process ends with exit code 2.

    The message says what is wrong, where, what is allowed and how to mend it.
    """
