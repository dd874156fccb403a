"""Time and memory of opening pretokenised data: the first time, and from the cache.

Makes image and scene files of the released layout in a temporary folder and opens them in fresh
processes. The files are in the page cache when they are read: just written, or read before.

Of memory the table gives what the process held before (its imports), what the step added of its
own and as mapped files (pages that the kernel may take back), and the peak of the whole process.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import kyvo.cli
from kyvo.errors import InputError
from kyvo.files import write_json
from kyvo.vocabulary import get_vocabulary

CODES_PER_IMAGE = 256
IDS_PER_OBJECT = 14
OBJECT = (
    "[OBJECT-START][SIZE] large[COLOR] cyan[MATERIAL] metal[SHAPE] cube"
    "[LOCATION]-0.550 0.050 0.700[OBJECT-END]"
)
OPEN = ("from kyvo.data.store import open_store", "stores = [open_store(p, p) for p in arguments]")
TOUCH = (OPEN[0], f"{OPEN[1]}; sum(int(store.ids.sum()) for store in stores)")
DATASET = (
    "from kyvo.data.dataset import kyvo_dataset; from kyvo.vocabulary import get_vocabulary",
    "dataset = kyvo_dataset(vocabulary=get_vocabulary('clevr'), task='I-3', "
    "image_source=arguments[0], three_d_source=arguments[1])",
)
# What is measured: setup and statement, and whether the cache is deleted before.
STEPS = {
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
    """Every step with the fastest of its runs."""
    for step, (code, deletes_cache) in STEPS.items():
        runs = [probe(folder, code, deletes_cache) for _ in range(repeats)]
        yield step, min(runs, key=lambda run: run["seconds"])


def table_row(step: str, run: dict[str, Any]) -> str:
    """Seconds and memory of one step, in the columns that ``main`` names."""
    before, after = run["before"], run["after"]
    own, mapped = (after[kind] - before[kind] for kind in ("own", "mapped"))
    return (
        f"{step:28}{run['seconds']:9.3f}{before['resident']:9.0f}"
        f"{own:+9.1f}{mapped:+9.1f}{after['peak']:9.0f}"
    )


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--entries", type=int, default=120_000, help="images, and as many scenes")
    parser.add_argument("--repeats", type=int, default=3, help="runs; the fastest one is shown")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args(argv)
    if min(args.entries, args.repeats) < 1:
        raise InputError("--entries and --repeats: expected 1 or more")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_entries(folder / "images.json", images(args.entries), args.entries)
        write_entries(folder / "scenes.json", scenes(args.entries), args.entries)
        source = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
        print(f"{args.entries} images and scenes, {source:.0f} MB of JSON; memory in MB")
        print(f"{'':28}{'seconds':>9}{'imports':>9}{'own':>9}{'mapped':>9}{'peak':>9}")
        results = {}
        for step, run in measure(folder, args.repeats):
            results[step] = run
            print(table_row(step, run), flush=True)
    if args.output:
        figures = {"entries": args.entries, "source_mb": source, "steps": results}
        write_json(args.output, figures)


if __name__ == "__main__":
    kyvo.cli.run(main)
