"""Memory of a process that opens a store: bounded when the cache is built, next to none after."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

ROOT = Path(__file__).parents[2]
NUM_ENTRIES, IDS_PER_ENTRY = 10_000, 256
IDS_MB = NUM_ENTRIES * IDS_PER_ENTRY * 4 / 1e6

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc"
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ids and strings of the size of a real data set's; about 20 MB."""
    path = tmp_path_factory.mktemp("memory") / "scenes.json"
    rows = np.random.default_rng(0).integers(1024, size=(NUM_ENTRIES, IDS_PER_ENTRY))
    string = "[OBJECT-START][SIZE] large[COLOR] cyan" * 20
    content = {
        f"CLEVR_{i:06d}.png": {"token_ids": row.tolist(), "string": string}
        for i, row in enumerate(rows)
    }
    path.write_bytes(orjson.dumps(content))
    return path


def memory_of(statement: str, source: Path) -> dict[str, Any]:
    """Memory (MB) of a fresh process before and after ``statement``."""
    setup = "from kyvo.data.store import open_store"
    command = [sys.executable, ROOT / "benchmarks/probe.py", setup, statement, source]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def test_memory(source: Path) -> None:
    statement = "store = open_store(arguments[0], 'scenes')"
    building = memory_of(statement, source)
    growth = building["after"]["peak"] - building["before"]["resident"]
    # The mapped file, the ids and strings, once in the file's order and once sorted.
    assert IDS_MB < growth < 3 * source.stat().st_size / 1e6

    reading = memory_of(f"{statement}; assert int(store.ids.max()) == 1023", source)
    own, mapped = (reading["after"][k] - reading["before"][k] for k in ("own", "mapped"))
    assert own < 4
    assert 0.9 * IDS_MB < mapped < 1.1 * IDS_MB, "the ids and nothing else were read"
