"""The errors a person sees, and the exit codes they end with.

Every message is one line that says what was given, what was expected and what to do next.
"""


class ParrotError(Exception):
    """The work failed: exit code 1."""

    exit_code = 1


class InputError(ParrotError):
    """Bad usage or bad input: exit code 2."""

    exit_code = 2


class ImageError(InputError):
    """A picture that cannot be read, or that is over a limit."""


class TextError(InputError):
    """A question or a text that cannot be used as it stands."""


class BundleError(InputError):
    """A bundle that is missing, altered, incomplete or of another schema."""
