"""The one exception a user is meant to see."""


class UbhpdError(Exception):
    """Wrong input, said in one sentence: what was found, where, and what to do about it.

    The command line prints the sentence without a traceback and exits with code 2.
    """
