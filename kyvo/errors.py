"""The one error that a user is meant to read."""

from collections.abc import Callable
from typing import Any


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


class Problems:
    """Collects input errors, so that a user is told all of them at once."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def attempt(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """The result of ``function``, or None if it raised an InputError, which is noted."""
        try:
            return function(*args, **kwargs)
        except InputErrors as errors:
            self.messages += errors.messages
        except InputError as error:
            self.messages.append(str(error))
        return None

    def raise_any(self, source: str | None = None) -> None:
        """Raise everything noted as one error.

        ``source`` says what the messages are about, where they don't say it themselves.
        """
        listing = "\n".join(f"  - {message}" for message in self.messages)
        if self.messages and source:
            raise InputError(f"{source}: {len(self.messages)} problem(s):\n{listing}")
        if len(self.messages) > 1:
            raise InputErrors(self.messages, f"{len(self.messages)} problems:\n{listing}")
        if self.messages:
            raise InputError(self.messages[0])


class InputErrors(InputError):
    """Several input errors, each complete on its own."""

    def __init__(self, messages: list[str], listing: str) -> None:
        super().__init__(listing)
        self.messages = messages
