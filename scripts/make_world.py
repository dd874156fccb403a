"""Make a CLEVR-style world: images and scenes, as many as asked for.

    python scripts/make_world.py --output worlds/small --splits train:4000 test:200 \
        --image-size 64 --samples-per-pixel 2 --min-objects 1 --max-objects 4

The same command goes on where an interrupted one stopped.
"""

import argparse
import os
from collections.abc import Sequence

import kyvo.common.cli
from kyvo.world.clevr.sampler import WORDS
from kyvo.world.renderers import RENDERERS
from kyvo.world.tasks import TASKS, scene_options
from kyvo.world.writer import WorldOptions, parse_splits, write_world

OPTIONS = ("min_objects", "max_objects", "extent", "camera_jitter", "lamp_jitter", *WORDS)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Make a CLEVR-style world: images and scenes.",
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
        help="what an item is: a scene, an edited pair with its instruction, a scene with a "
        "question, or a scene of ObjaWorld's kind",
    )
    add("--renderer", choices=RENDERERS, default="tracer", help="what draws: mitsuba is an extra")
    add("--image-size", type=int, default=256, help="height and width of the images in pixels")
    add("--samples-per-pixel", type=int, default=4, help="rays through each pixel")
    scenes = parser.add_argument_group("scenes", "what is not given is as in the original data set")
    add_option = scenes.add_argument
    add_option("--min-objects", type=int, help="fewest objects of a scene")
    add_option("--max-objects", type=int, help="most objects of a scene")
    add_option("--extent", type=float, help="metres from the middle that objects are within")
    add_option("--camera-jitter", type=float, help="metres the camera moves along each axis")
    add_option("--lamp-jitter", type=float, help="metres the lights move along each axis")
    for name, words in WORDS.items():
        add_option(f"--{name}", nargs="+", choices=words, help=f"{name} of CLEVR's objects")
    add("--seed", type=int, default=0, help="of scenes and noise")
    add("--workers", type=int, default=os.cpu_count(), help="processes beside this one, 0: none")
    add("--device", default="cpu", help="where images are rendered: cpu or cuda")
    add("--batch-size", type=int, help="items that a worker takes at a time; not given: fast ones")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    """Make the world and print what was done."""
    arguments = parse(argv)
    scenes = scene_options(
        arguments.task,
        height=arguments.image_size,
        width=arguments.image_size,
        **{name: getattr(arguments, name) for name in OPTIONS},
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
    kyvo.common.cli.run(main)
