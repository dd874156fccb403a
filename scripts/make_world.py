"""Make a CLEVR-style world: pictures and scenes, as many as asked for.

    python scripts/make_world.py --output worlds/small --splits train:4000 test:200 \
        --image-size 64 --samples-per-pixel 2 --min-objects 1 --max-objects 4

The same command goes on where an interrupted one stopped.
"""

import argparse
import os
from collections.abc import Sequence

import kyvo.cli
from kyvo.world.sampler import WORDS, SceneOptions
from kyvo.world.tasks import TASKS
from kyvo.world.writer import RENDERERS, WorldOptions, parse_splits, write_world


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Make a CLEVR-style world: pictures and scenes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--output", required=True, help="folder to write into; a started one is completed")
    add(
        "--splits",
        nargs="+",
        metavar="NAME:COUNT",
        help="splits and their numbers of items; not given: the paper's, of which test is held out",
    )
    add(
        "--task",
        choices=TASKS,
        default="scenes",
        help="what an item is: a scene, an edited pair "
        "with its instruction, or a scene with a question",
    )
    add("--renderer", choices=RENDERERS, default="tracer", help="what draws: mitsuba is an extra")
    add("--image-size", type=int, default=256, help="height and width of the pictures in pixels")
    add("--samples-per-pixel", type=int, default=4, help="rays through each pixel")
    add("--min-objects", type=int, default=3, help="fewest objects of a scene")
    add("--max-objects", type=int, default=10, help="most objects of a scene")
    add(
        "--extent", type=float, default=3.0, help="metres from the middle that objects stand within"
    )
    add("--camera-jitter", type=float, default=0.5, help="metres the camera moves along each axis")
    add("--lamp-jitter", type=float, default=1.0, help="metres the lamps move along each axis")
    for name, words in WORDS.items():
        add(f"--{name}", nargs="+", default=words, choices=words, help=f"{name} of the objects")
    add("--seed", type=int, default=0, help="of scenes and noise")
    add("--workers", type=int, default=os.cpu_count(), help="processes; 0: only this one")
    add("--device", default="cpu", help="where pictures are rendered: cpu or cuda")
    add("--batch-size", type=int, default=16, help="scenes that a worker takes at a time")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    """Make the world and print what was done."""
    arguments = parse(argv)
    scenes = SceneOptions(
        min_objects=arguments.min_objects,
        max_objects=arguments.max_objects,
        extent=arguments.extent,
        camera_jitter=arguments.camera_jitter,
        lamp_jitter=arguments.lamp_jitter,
        height=arguments.image_size,
        width=arguments.image_size,
        sizes=tuple(arguments.sizes),
        colors=tuple(arguments.colors),
        shapes=tuple(arguments.shapes),
        materials=tuple(arguments.materials),
    )
    summary = write_world(
        arguments.output,
        parse_splits(arguments.splits) if arguments.splits else TASKS[arguments.task].splits,
        WorldOptions(
            scenes, arguments.samples_per_pixel, arguments.seed, arguments.task, arguments.renderer
        ),
        arguments.device,
        arguments.workers,
        arguments.batch_size,
    )
    print(summary)


if __name__ == "__main__":
    kyvo.cli.run(main)
