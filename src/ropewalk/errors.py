"""What a user is meant to read: the one exception of the package, and torch's OutOfMemoryError made short."""


class UserError(ValueError):
    """Something the user asked for cannot be done.

    The message is one sentence that holds the rule, the value that broke it and the way out. The command line prints
    it without a traceback and exits with 2.
    """


def shortage(error: BaseException) -> str:
    """First two sentences of torch's OutOfMemoryError: what was asked for. The rest is addresses and advice."""
    return ". ".join(str(error).split(". ")[:2])
