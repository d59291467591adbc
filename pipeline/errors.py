"""The errors that are the user's to mend."""

import errno


class InputError(Exception):
    """What was found, what was wanted, what to do: one line.

    A job prints it and exits with code 2.
    """


class StoreError(InputError):
    """An object store is away or does not let us in: no word about what the object holds."""


class NoPermissionError(StoreError, PermissionError):
    """An object store does not let us read or write this one object: it is not damaged by that."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.errno = errno.EACCES  # an OSError without a number is taken for a damaged file
