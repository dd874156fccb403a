"""The quick start from nothing to its report: seconds of every stage, and what the models reach.

    python3 benchmarks/quickstart.py --output benchmarks/results/quickstart.json

Runs in a temporary folder; the checkout's own ``quickstart`` stays as it is. The install is not
part of it.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import bench
import orjson
import torch
from bench import Row

import kyvo.common.cli
from kyvo.common.files import read_json, require_file

ROOT = Path(__file__).resolve().parents[1]
LOG = "stages.log"
GOAL_SECONDS = 240
GENERATED = re.compile(
    r"^(\S+): (\d+) samples \(\2 generated now, ([\d.,]+) samples/s, ([\d.,]+) tokens/s\)$", re.M
)


def run(folder: Path, device: torch.device, is_tiny: bool) -> None:
    """Run the quick start in ``folder``; what it prints is shown, and kept in ``LOG``."""
    for name in ("configs", "scripts"):
        (folder / name).symlink_to(ROOT / name)
    command = [sys.executable, "scripts/quickstart.py", *(["--tiny"] if is_tiny else [])]
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if device.type == "cpu" else {}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **hidden}
    with (
        (folder / LOG).open("w") as log,
        subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            log.write(line)
    if process.returncode:
        # The command has printed its error.
        sys.exit(process.returncode)


def rows_of(folder: Path) -> Iterator[Row]:
    """The rows of a quick start that was run in ``folder``.

    Raises:
        InputError: a file of it is missing.
    """
    made = folder / "quickstart"
    yield from _stages(made)
    yield from _training(made)
    yield from _generation(require_file(folder / LOG, "what the quick start printed").read_text())
    yield from _quality(made)


def _stages(made: Path) -> Iterator[Row]:
    timings: dict[str, float] = read_json(made / "timings.json", "seconds of the stages")
    goal = (GOAL_SECONDS, "the goal, on two cores")
    yield Row("all stages", sum(timings.values()), "s", *goal)
    for stage, seconds in timings.items():
        yield Row(f"stage: {stage}", seconds, "s")


def _training(made: Path) -> Iterator[Row]:
    tokenizer = _log(made / "vqgan/metrics.jsonl")
    yield Row("image tokenizer, held-out images", _last(tokenizer, "val_psnr"), "dB PSNR")
    used = 100 * _last(tokenizer, "val_codebook_usage")
    yield Row("image tokenizer, codes in use", used, "%")
    model = _log(made / "checkpoints/kyvo/metrics.jsonl")
    rates = [record["tokens_per_second"] for record in model if "tokens_per_second" in record]
    yield Row("language model, training", median(rates), "tokens/s")
    yield Row("language model, held-out loss", _last(model, "val_loss"), "nats")


def _generation(log: str) -> Iterator[Row]:
    for name, count, samples, tokens in GENERATED.findall(log):
        what = f"generation: {name}, {count} samples"
        yield Row(what, float(samples.replace(",", "")), "samples/s")
        yield Row(what, float(tokens.replace(",", "")), "tokens/s")


def _quality(made: Path) -> Iterator[Row]:
    """Scores of the trained model, beside the untrained one's."""
    trained, untrained = (
        read_json(made / f"results/three_d_json/{name}/jaccard.json", "scores")["jaccard"]
        for name in ("recognition", "recognition-untrained")
    )
    yield Row("recognition, held-out scenes", trained, "Jaccard", untrained, "the untrained model")
    scores = {
        name: read_json(made / f"results/similarity/{name}/ssim_l2.json", "scores")
        for name in ("trained", "untrained", "tokenizer")
    }
    for key, unit in (("ssim", "SSIM"), ("l2", "L2")):
        yield Row(
            "rendering, held-out scenes",
            scores["trained"][key],
            unit,
            scores["untrained"][key],
            "the untrained model",
            scores["tokenizer"][key],
            "the tokenizer alone",
        )


def _log(path: Path) -> list[dict[str, Any]]:
    lines = require_file(path, "training log").read_bytes().splitlines()
    return [orjson.loads(line) for line in lines]


def _last(records: Sequence[dict[str, Any]], key: str) -> float:
    return [record[key] for record in records if key in record][-1]


def main(argv: Sequence[str]) -> None:
    """Parse, run, save."""
    parser = bench.argument_parser(__doc__)
    parser.set_defaults(device="cpu")
    parser.add_argument("--tiny", action="store_true", help="a few samples and steps: a test")
    parser.add_argument("--finished", type=Path, help="folder of a run to read; runs nothing")
    args = parser.parse_args(argv)
    device = bench.device_of(args)
    with tempfile.TemporaryDirectory() as name:
        folder = args.finished or Path(name)
        if not args.finished:
            run(folder, device, args.tiny)
        rows = list(rows_of(folder))
    bench.save(args.output, "benchmarks/quickstart.py", argv, device, {}, rows)


if __name__ == "__main__":
    kyvo.common.cli.run(main)
