"""The one error that is the user's to mend."""


class InputError(Exception):
    """What was found, what was wanted, what to do: one line.

    A job prints it and exits with code 2.
    """
