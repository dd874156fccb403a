"""The one error that a user is meant to read."""


class InputError(ValueError):
    """Something the user gave is wrong: a file, a key, a value, a flag.

    The message is complete on its own: what is wrong, where (file, key, sample), what was
    expected and what to do about it. Scripts print it without a traceback and exit with 1.
    """


class MissingDependencyError(InputError):
    """An optional package is not installed."""

    def __init__(self, package: str, purpose: str, extra: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed. "
            f'Install it with: pip install "kyvo[{extra}]"'
        )
