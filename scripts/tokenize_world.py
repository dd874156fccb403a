"""Tokenise a world of images and scenes into the layout of the released data set.

python3 scripts/tokenize_world.py --world FOLDER --vqgan FOLDER --output FOLDER
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import kyvo.common.cli
from kyvo.common.devices import resolve_device
from kyvo.common.errors import InputError
from kyvo.common.files import folder_lock
from kyvo.images.checkpoint import copy_vqgan, load_vqgan
from kyvo.images.codebook import save_codebook
from kyvo.images.codec import ImageCodec
from kyvo.images.vqgan import VQGAN
from kyvo.prepare.layout import ReleasedLayout
from kyvo.prepare.tokenization import WorldTokenizer, fast_batch_size
from kyvo.prepare.world_tasks import tokenize_task
from kyvo.scenes import SceneCodec, get_schema
from kyvo.tokens.text_tokenizer import load_text_tokenizer
from kyvo.tokens.vocabulary import get_vocabulary


def main(argv: Sequence[str]) -> None:
    """Parse, tokenise every split, put the VQGAN and the originals beside."""
    arguments = _parse(argv)
    if arguments.image_size is not None and arguments.image_size < 1:
        raise InputError(f"--image-size {arguments.image_size}: expected 1 or more.")
    if arguments.workers < 0:
        raise InputError(f"--workers {arguments.workers}: expected 0 or more.")
    with folder_lock(arguments.output, arguments.world, arguments.vqgan):
        _tokenize(arguments)
    print(f"written to {arguments.output}")


def _tokenize(arguments: argparse.Namespace) -> None:
    vocabulary = get_vocabulary(arguments.vocabulary)
    codec = SceneCodec(
        get_schema(arguments.schema),
        vocabulary,
        load_text_tokenizer(arguments.tokenizer, vocabulary),
    )
    vqgan = load_vqgan(arguments.vqgan) if arguments.vqgan else None
    tokenizer = WorldTokenizer(
        codec,
        _image_codec(vqgan, arguments) if vqgan else None,
        arguments.image_size or (vqgan.config.resolution if vqgan else 0),
        arguments.object_order,
        arguments.workers,
    )
    layout = ReleasedLayout(arguments.output, arguments.dataset, arguments.suffix)
    for split in arguments.splits:
        is_evaluation = split in arguments.evaluation_splits
        counts = tokenize_task(tokenizer, arguments.world, split, layout, is_evaluation)
        print(f"{split}: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    if vqgan:
        copy_vqgan(arguments.vqgan, layout.models / arguments.vqgan.resolve().name)
        codebook = vqgan.codebook.detach().cpu().numpy()
        save_codebook(layout.codebook(codebook.shape), codebook)


def _image_codec(vqgan: VQGAN, arguments: argparse.Namespace) -> ImageCodec:
    device = resolve_device(arguments.device)
    return ImageCodec(
        vqgan,
        device,
        arguments.batch_size or fast_batch_size(device, vqgan.config.resolution),
        arguments.precision,
        arguments.compile,
    )


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--world", type=Path, required=True, help="folder with SPLIT/images and SPLIT/scenes")
    add("--vqgan", type=Path, help="VQGAN folder (configs/, checkpoints/); none: no image codes")
    add("--output", type=Path, required=True, help="root of the tree to write")
    add("--dataset", default="clevr", help="name of the data set's folders in that tree")
    add(
        "--suffix",
        default=ReleasedLayout.suffix,
        help="ends the names of image and scene files: also 'source', 'target', 'for_vqa'; '' for "
        "objaworld and objectron",
    )
    add("--splits", nargs="+", default=["train", "test"], help="splits to tokenise")
    add("--evaluation-splits", nargs="*", default=["test"], help="splits kept for the metrics")
    add("--vocabulary", default="clevr", help="vocabulary preset, or a .yaml file")
    add("--schema", default="clevr", help="scene schema, or a .yaml file")
    add("--tokenizer", type=Path, help="text tokenizer file; not needed for 'mini'")
    add("--image-size", type=int, help="side in pixels; the VQGAN's own if not given")
    orders = ("file", "far-to-near", "near-to-far")
    add("--object-order", choices=orders, default="file", help="of a scene")
    add("--batch-size", type=int, help="images encoded at a time; not given: a fast number")
    add("--workers", type=int, default=os.cpu_count(), help="processes that read; 0: this one")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to encode")
    choices = ("auto", "fp32", "bf16")
    add("--precision", choices=choices, default="fp32", help="auto: bf16 where it is faster")
    add("--compile", action="store_true", help="compile the encoder: pays for many images")
    return parser.parse_args(argv)


if __name__ == "__main__":
    kyvo.common.cli.run(main)
