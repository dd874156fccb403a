"""What every command shares: one clear line on bad input, the right exit status, overrides."""

import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from kyvo.common.errors import InputError

_OVERRIDE = re.compile(r"[A-Za-z_][\w.]*=")
OVERRIDES_HELP = "key=value, anywhere, changes the configs: num_samples=100 device=cpu"


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does: what is half-written is cleared away."""


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Run ``main(argv)`` as a command.

    Exit 1 with the message on InputError and on an error of the file system, 130 on Ctrl-C, 143 on
    SIGTERM.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        main(sys.argv[1:])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # Whoever read the output has left; so that the interpreter does not complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        reason = f"{place}{error.strerror or error}"
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


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments without those of the form ``key=value``, and these overrides of configs."""
    rest = [value for value in argv if not _OVERRIDE.match(value)]
    return rest, [value for value in argv if _OVERRIDE.match(value)]
