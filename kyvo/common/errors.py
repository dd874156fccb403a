"""The one error that a user is meant to read."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
T = TypeVar("T")


class InputError(ValueError):
    """Something the user gave is wrong: a file, a key, a value, a flag.

    The message is complete on its own: what is wrong, where (file, key, sample), what was
    expected and what to do about it. Scripts print it without a traceback and exit with 1.
    """


class TaskError(InputError):
    """A model is asked for a task that it was not trained on."""


class MissingDependencyError(InputError):
    """An optional package is not installed."""

    def __init__(self, package: str, purpose: str, extra: str | None = None) -> None:
        """``extra`` is the project's that has the package; None: none has."""
        wanted = package if extra is None else f'"kyvo[{extra}]"'
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed. "
            f"Install it with: pip install {wanted}"
        )


class InputErrors(InputError):
    """Several input errors, each complete on its own."""

    def __init__(self, messages: list[str]) -> None:
        listing = "\n".join(f"  - {message}" for message in messages)
        super().__init__(f"{len(messages)} problems:\n{listing}" if messages[1:] else messages[0])
        self.messages = messages


class Problems:
    """Collects input errors, so that a user sees all of them at once."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def add(self, message: str) -> None:
        """Record a problem; one that two checks find is reported once."""
        if message not in self.messages:
            self.messages.append(message)

    def attempt(
        self, function: Callable[Arguments, T], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> T | None:
        """The result of ``function``, or None if it raised an InputError, which is recorded."""
        try:
            return function(*args, **kwargs)
        except InputError as error:
            for message in error.messages if isinstance(error, InputErrors) else [str(error)]:
                self.add(message)
            return None

    def checked(self, found: T | None) -> T:
        """What an attempt found; every problem is raised if this or another one failed."""
        self.raise_any()
        assert found is not None, "an attempt that fails leaves a message"
        return found

    def raise_any(self, source: str | None = None) -> None:
        """Raise everything recorded as one error.

        ``source`` says what the messages are about, where they don't say it themselves.
        """
        if self.messages:
            prefix = f"{source}: " if source else ""
            raise InputErrors([f"{prefix}{message}" for message in self.messages])
