"""What every command shares: one clear line on bad input, the right exit status, overrides."""

import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from types import FrameType
from typing import Any, TextIO, cast

from kyvo.common.errors import InputError
from kyvo.common.files import is_utf8

_OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")
OVERRIDES_HELP = (
    "key=value, anywhere, changes the configs: num_samples=100 device=cpu; a path with an equals "
    "sign is written ./a=b"
)
# All but tab, newline and carriage return.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does: what is half-written is cleared away."""


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Run ``main(argv)`` as a command.

    Exit 1 with the message on InputError and on an error of the file system, 130 on Ctrl-C, 143 on
    SIGTERM.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        with redirect_stdout(cast(TextIO, _Printable(sys.stdout))):
            main(_checked(sys.argv[1:]))
    except InputError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read the output has left; so that the interpreter does not complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        reason = printable(f"{place}{error.strerror or error}")
        print(f"error: {reason}. Check the path, its permissions and the disk.", file=sys.stderr)
        sys.exit(1)
    except Terminated:
        print("terminated", file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    finally:
        signal.signal(signal.SIGTERM, before)


def printable(text: str) -> str:
    """The text with control characters, which could steer a terminal, written out."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class _Printable:
    """A stream that prints ``printable`` texts: names and words of data reach it from anywhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(printable(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _checked(argv: Sequence[str]) -> list[str]:
    """The arguments; InputError if one is not UTF-8, which no file of results could name."""
    for value in argv:
        if not is_utf8(value):
            raise InputError(f"argument {value!r}: not UTF-8. Rename the file.")
    return list(argv)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments without those of the form ``key=value``, and these overrides of configs."""
    before = ["", *argv]
    # What follows a flag is its value, even if it has an equals sign: every flag here takes one.
    is_override = [
        bool(_OVERRIDE.match(value)) and not (flag.startswith("--") and "=" not in flag)
        for flag, value in zip(before, argv, strict=False)
    ]
    pairs = list(zip(argv, is_override, strict=True))
    return [v for v, is_one in pairs if not is_one], [v for v, is_one in pairs if is_one]
