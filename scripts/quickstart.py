"""The whole job at small scale: a world, its tokens, a model, its predictions, a report.

    make quickstart

Every stage is one of the project's own commands and is printed as such. A stopped run goes on
with the stage that it was in; delete the folder to start anew.
"""

import argparse
import importlib
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import kyvo.cli
from kyvo.files import read_json, write_json

OUTPUT = "quickstart"
_RESULTS = f"{OUTPUT}/results"
_ORIGINALS = f"{OUTPUT}/data/images-and-scenes-for-evaluation/clevr/original_images"
_VQGANS = f"{OUTPUT}/data/vqgan-models-and-codebooks"
_CODES = (
    f"{OUTPUT}/data/pretokenized-data/clevr/images/"
    "train_vqgan_indices_merged_for_rendering_and_recognition.json"
)


@dataclass(frozen=True)
class Stage:
    """One stage: what it is for, the commands it runs, and what makes them tiny in a test."""

    name: str
    sentence: str
    commands: tuple[str, ...]
    tiny: str = ""


def _generate(task: str, is_trained: bool) -> str:
    untrained = "" if is_trained else f" checkpoint=null run_identifier={task}-untrained"
    return f"generate_3d.py --config configs/mini/eval/{task}.yaml{untrained}"


def _decode(run: str) -> str:
    return (
        f"decode_image_embeddings.py --vqgan_type clevr --vqgan_root {_VQGANS} "
        f"--folder_path {_RESULTS}/image_embeddings/{run} "
        f"--image_output_path {_RESULTS}/decoded/{run}"
    )


def _jaccard(run: str) -> str:
    return (
        f"compute_jaccard_index.py --tau paper --generated_folder {_RESULTS}/three_d_json/{run} "
        f"--groundtruth_folder {_ORIGINALS}/scenes --dataset clevr"
    )


def _similarity(run: str, kind: str, output: str) -> str:
    return (
        f"compute_ssim_l2loss.py --generated_folder {_RESULTS}/decoded/{run}/{kind} "
        f"--groundtruth_folder {_ORIGINALS}/images --output_folder {_RESULTS}/{output}"
    )


STAGES = (
    Stage(
        "world",
        "Making a small world: scenes of one or two objects, ray-traced at 64 x 64 pixels.",
        (
            f"make_world.py --output {OUTPUT}/world --splits train:6000 test:200 --image-size 64 "
            "--samples-per-pixel 2 --min-objects 1 --max-objects 2 --camera-jitter 0 "
            "--lamp-jitter 0 --sizes large --colors red green blue yellow",
        ),
        tiny="--splits train:24 test:4 --workers 0",
    ),
    Stage(
        "image tokenizer",
        "Training a mini VQGAN: it learns to write a picture as 8 x 8 codes out of 512.",
        ("train_vqgan.py --config configs/mini/vqgan.yaml",),
        tiny="max_steps=20 model.ch=16 batch_size=4 codebook.start_pictures=24",
    ),
    Stage(
        "tokens",
        "Tokenising pictures and scenes into the layout of the released data set.",
        (
            f"tokenize_world.py --world {OUTPUT}/world --vqgan {OUTPUT}/vqgan/mini "
            f"--output {OUTPUT}/data --vocabulary mini --object-order far-to-near",
        ),
    ),
    Stage(
        "language model",
        "Training a mini Kyvo on both tasks: picture to scene, and scene to picture.",
        ("full_finetune_single_device_3d.py --config configs/mini/train.yaml",),
        tiny="max_steps=6 batch_size=8 log_every_n_steps=2 validate_every_n_steps=3",
    ),
    Stage(
        "recognition",
        "Reading scenes out of held-out pictures, with the trained and an untrained model.",
        (_generate("recognition", True), _generate("recognition", False)),
    ),
    Stage(
        "rendering",
        "Drawing pictures of held-out scenes, with the trained and an untrained model.",
        (
            _generate("rendering", True),
            _generate("rendering", False),
            _decode("rendering"),
            _decode("rendering-untrained"),
        ),
    ),
    Stage(
        "metrics",
        "Measuring both: Jaccard index of the scenes, SSIM and L2 of the pictures.",
        (
            _jaccard("recognition"),
            _jaccard("recognition-untrained"),
            _similarity("rendering", "GENERATED", "similarity/trained"),
            _similarity("rendering-untrained", "GENERATED", "similarity/untrained"),
            _similarity("rendering", "GROUNDTRUTH", "similarity/tokenizer"),
        ),
    ),
    Stage(
        "report",
        "Writing the report.",
        (
            f"make_report.py --output {OUTPUT}/report.html "
            f"--predictions {_RESULTS}/three_d_json/recognition/"
            "predicted_scenes_recognition.json "
            f"--untrained_predictions {_RESULTS}/three_d_json/recognition-untrained/"
            "predicted_scenes_recognition-untrained.json "
            f"--scenes_folder {_ORIGINALS}/scenes --images_folder {_ORIGINALS}/images "
            f"--generated_folder {_RESULTS}/decoded/rendering/GENERATED "
            f"--reconstructed_folder {_RESULTS}/decoded/rendering/GROUNDTRUTH "
            f"--jaccard {_RESULTS}/three_d_json/recognition/jaccard.json "
            f"--untrained_jaccard {_RESULTS}/three_d_json/recognition-untrained/jaccard.json "
            f"--similarity {_RESULTS}/similarity/trained/ssim_l2.json "
            f"--untrained_similarity {_RESULTS}/similarity/untrained/ssim_l2.json "
            f"--reconstruction_similarity {_RESULTS}/similarity/tokenizer/ssim_l2.json "
            f"--parse_report {_RESULTS}/three_d_json/recognition/parse_report.json "
            f"--untrained_parse_report {_RESULTS}/three_d_json/recognition-untrained/"
            "parse_report.json "
            f"--training_logs Kyvo={OUTPUT}/checkpoints/kyvo/metrics.jsonl "
            f"--vqgan_log {OUTPUT}/vqgan/metrics.jsonl --codes {_CODES} --num_codes 512 "
            f"--timings {OUTPUT}/timings.json",
        ),
        tiny="--num_examples 2",
    ),
)


def run_stages(is_tiny: bool) -> None:
    """Run every stage that has no time in ``timings.json`` yet."""
    record = Path(OUTPUT) / "timings.json"
    timings: dict[str, float] = read_json(record, "timings") if record.is_file() else {}
    for number, stage in enumerate(STAGES, start=1):
        if stage.name in timings and stage != STAGES[-1]:
            print(f"[{number}/{len(STAGES)}] {stage.name}: done before.")
            continue
        print(f"\n[{number}/{len(STAGES)}] {stage.sentence}", flush=True)
        begun = time.perf_counter()
        for command in stage.commands:
            _run(f"{command} {stage.tiny}" if is_tiny else command)
        timings[stage.name] = round(time.perf_counter() - begun, 1)
        write_json(record, timings)
    print(f"\nDone in {sum(timings.values()):.0f} s. Open {OUTPUT}/report.html in a browser.")


def _run(command: str) -> None:
    print(f"$ python3 scripts/{command}", flush=True)
    script, *argv = shlex.split(command)
    importlib.import_module(script.removesuffix(".py")).main(argv)


def main(argv: Sequence[str]) -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a few samples and steps: a test")
    arguments = parser.parse_args(argv)
    sys.path.insert(0, str(Path(__file__).parent))
    run_stages(arguments.tiny)


if __name__ == "__main__":
    kyvo.cli.run(main)
