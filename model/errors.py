"""The one error of this room that is the user's to mend."""


class ModelError(ValueError):
    """What was found, what was wanted, what to do: one line.

    A job prints it and exits with code 2.
    """
