"""Run one statement in this fresh process; print its seconds and memory as JSON (Linux).

    python3 benchmarks/probe.py SETUP STATEMENT [ARGUMENT ...]

SETUP and STATEMENT are Python, as for ``timeit``; both see ``arguments``, a list of strings.
"""

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import orjson

import kyvo.common.cli

# Fields of /proc/self/status: the peak, and what the process holds now in all, of its own memory,
# and of mapped files. The kernel can take the pages of mapped files back at any time.
_FIELDS = {"peak": "VmHWM", "resident": "VmRSS", "own": "RssAnon", "mapped": "RssFile"}


def memory() -> dict[str, float]:
    """Memory of this process, MB."""
    status = Path("/proc/self/status").read_text()
    kilobytes = dict(re.findall(r"(\w+):\s+(\d+) kB", status))
    return {name: int(kilobytes[field]) * 1024 / 1e6 for name, field in _FIELDS.items()}


def main(argv: Sequence[str]) -> None:
    setup, statement, *arguments = argv
    names = {"arguments": arguments}
    exec(setup, names)
    before, start = memory(), time.perf_counter()
    exec(statement, names)
    seconds = time.perf_counter() - start
    result = {"seconds": seconds, "before": before, "after": memory()}
    sys.stdout.write(orjson.dumps(result | {"torch": "torch" in sys.modules}).decode() + "\n")


if __name__ == "__main__":
    kyvo.common.cli.run(main)
