"""The one exception a user is meant to read."""


class UserError(ValueError):
    """Something the user asked for cannot be done.

    The message is one sentence that holds the rule, the value that broke it and the way out. The command line prints
    it without a traceback and exits with 2.
    """
