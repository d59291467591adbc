"""The one error that is the user's to mend."""


class InputError(Exception):
    """What was found, what was wanted, what to do: one line.

    A job prints it and exits with code 2.
    """


class StoreError(InputError):
    """An object store is away or does not let us in: says nothing about the object asked for."""


class NoPermissionError(InputError, PermissionError):
    """An object store does not let us read or write this one object."""
