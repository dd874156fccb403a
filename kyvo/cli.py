"""What every command shares: one clear line on bad input, and the right exit status."""

import sys
from collections.abc import Callable, Sequence

from kyvo.errors import InputError


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Run ``main(argv)`` as a command: exit 1 with the message on InputError, 130 on Ctrl-C."""
    try:
        main(sys.argv[1:])
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
