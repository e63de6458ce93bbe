"""The one exception for a user's mistake."""


class UserError(ValueError):
    """A mistake that the user can mend: the message names the value, what is allowed and the fix.

    The command line prints the message alone and exits with code 2; every other exception is a
    bug of ours and keeps its traceback.
    """
