"""Loader worker processes."""

import signal


def leave_signals_to_parent(_worker: int) -> None:
    """Ignore SIGINT and SIGTERM, which reach every process of a job at once.

    The main process saves and then ends its workers; a worker that died first would make it fail.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
