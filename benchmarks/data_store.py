"""Opening pretokenised data, the first time and from the cache: time and memory.

    python3 benchmarks/data_store.py --output benchmarks/results/data_store.json

Makes image and scene files of the released layout in a temporary folder and opens them in fresh
processes. The files are in the page cache when they are read: just written, or read before.

The reference is ``json.load`` of both files, as the released code reads them. The peak is that of
the whole process; the note has what it held before (its imports), and what the step added of its
own and as mapped files (pages that the kernel may take back).
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import bench
import numpy as np
import torch
from bench import Row
from tqdm import tqdm

import kyvo.common.cli
from kyvo.common.errors import InputError
from kyvo.tokens.vocabulary import get_vocabulary

CODES_PER_IMAGE = 256
IDS_PER_OBJECT = 14
OBJECT = (
    "[OBJECT-START][SIZE] large[COLOR] cyan[MATERIAL] metal[SHAPE] cube"
    "[LOCATION]-0.550 0.050 0.700[OBJECT-END]"
)
OPEN = ("from kyvo.data.store import open_store", "stores = [open_store(p, p) for p in arguments]")
TOUCH = (OPEN[0], f"{OPEN[1]}; sum(int(store.ids.sum()) for store in stores)")
DATASET = (
    "from kyvo.data.dataset import kyvo_dataset; from kyvo.tokens.vocabulary import get_vocabulary",
    "dataset = kyvo_dataset(vocabulary=get_vocabulary('clevr'), task='I-3', "
    "image_source=arguments[0], three_d_source=arguments[1])",
)
JSON_LOAD = ("import json", "entries = [json.load(open(path)) for path in arguments]")
# What is measured: setup and statement, and whether the cache is deleted before.
STEPS = {
    "json.load of both files": (JSON_LOAD, False),
    "open, building the cache": (OPEN, True),
    "open from the cache": (OPEN, False),
    "open, read every id once": (TOUCH, False),
    "whole data set of task I-3": (DATASET, False),
}


def images(count: int) -> Iterator[list[int]]:
    """Entries of an image file: codes."""
    random = np.random.default_rng(0)
    num_codes = get_vocabulary("clevr").num_image_codes
    return (random.integers(num_codes, size=CODES_PER_IMAGE).tolist() for _ in range(count))


def scenes(count: int) -> Iterator[dict[str, Any]]:
    """Entries of a scene file: 3 to 10 objects, ids of numbers and markers, the text."""
    random = np.random.default_rng(1)
    vocabulary = get_vocabulary("clevr")
    for num_objects in random.integers(3, 11, size=count).tolist():
        size = 2 + IDS_PER_OBJECT * num_objects
        ids = random.integers(vocabulary.number.start, vocabulary.marker.stop, size=size)
        text = f"[SCENE-START]{OBJECT * num_objects}[SCENE-END]"
        yield {"token_ids": ids.tolist(), "string": text}


def write_entries(path: Path, entries: Iterator[Any], count: int) -> None:
    """One JSON object, keys as CLEVR's."""
    with path.open("w") as stream:
        for index, entry in enumerate(tqdm(entries, total=count, desc=path.name, leave=False)):
            start = ", " if index else "{"
            stream.write(f'{start}"CLEVR_train_{index:06d}.png": {json.dumps(entry)}')
        stream.write("}")


def probe(folder: Path, code: tuple[str, str], deletes_cache: bool) -> dict[str, Any]:
    """Seconds and memory (MB) of one step in a fresh process (see ``probe.py``)."""
    if deletes_cache:
        shutil.rmtree(folder / ".kyvo-cache", ignore_errors=True)
    script = Path(__file__).with_name("probe.py")
    files = (str(folder / name) for name in ("images.json", "scenes.json"))
    command = [sys.executable, str(script), *code, *files]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def measure(folder: Path, repeats: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every step with its run of median time."""
    for step, (code, deletes_cache) in STEPS.items():
        runs = [probe(folder, code, deletes_cache) for _ in range(repeats)]
        yield step, sorted(runs, key=lambda run: run["seconds"])[(repeats - 1) // 2]


def rows_of(runs: dict[str, dict[str, Any]]) -> Iterator[Row]:
    """Seconds and peak memory of every step, beside those of the first."""
    source, reference = next(iter(runs.items()))
    for step, run in runs.items():
        before, after = run["before"], run["after"]
        own, mapped = (after[kind] - before[kind] for kind in ("own", "mapped"))
        held = f"{before['resident']:.0f} MB before, {own:+.0f} own, {mapped:+.0f} mapped"
        rows = (
            (run["seconds"], reference["seconds"], "s", ""),
            (after["peak"], reference["after"]["peak"], "MB", held),
        )
        for value, beside, unit, note in rows:
            if step == source:
                yield Row(step, value, unit, note=note)
            else:
                yield Row(step, value, unit, beside, source, note=note)


def main(argv: Sequence[str]) -> None:
    """Parse, measure, save."""
    parser = bench.argument_parser(__doc__)
    parser.add_argument("--entries", type=int, default=120_000, help="images, and as many scenes")
    parser.add_argument("--repeats", type=int, default=3, help="runs, of which the median is shown")
    args = parser.parse_args(argv)
    if min(args.entries, args.repeats) < 1:
        raise InputError("--entries and --repeats: expected 1 or more")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_entries(folder / "images.json", images(args.entries), args.entries)
        write_entries(folder / "scenes.json", scenes(args.entries), args.entries)
        size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        runs = dict(measure(folder, args.repeats))
    about = Row(f"JSON of {args.entries:,} images and as many scenes", size, "MB of files")
    rows = [about, *rows_of(runs)]
    bench.save(args.output, "benchmarks/data_store.py", argv, torch.device("cpu"), {}, rows)


if __name__ == "__main__":
    kyvo.common.cli.run(main)
