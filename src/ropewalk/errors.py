"""What a user is meant to read: our one exception, and what is left of torch's word on memory."""


class UserError(ValueError):
    """Something the user asked for cannot be done.

    The message is one sentence that holds the rule, the value that broke it and the way out. The command line prints
    it without a traceback and exits with 2.
    """


def shortage(error: BaseException) -> str:
    """What torch says of memory that is not there, up to how much was asked for; the rest is addresses and advice."""
    return ". ".join(str(error).split(". ")[:2])
