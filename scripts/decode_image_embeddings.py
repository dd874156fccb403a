"""Decode generated image embeddings into images with a VQGAN.

    python3 scripts/decode_image_embeddings.py --vqgan_type clevr --folder_path FOLDER \\
        --image_output_path FOLDER
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import kyvo.common.cli
from kyvo.common.devices import resolve_device
from kyvo.common.files import folder_lock
from kyvo.images.checkpoint import load_vqgan
from kyvo.images.codec import ImageCodec
from kyvo.images.embedding_files import decode_embeddings, find_embeddings, find_vqgan


def main(argv: Sequence[str]) -> None:
    """Parse, decode, print where the images are."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--vqgan_type", required=True, help="data set whose VQGAN decodes, such as clevr")
    add("--folder_path", type=Path, required=True, help="image embeddings of a run")
    add("--image_output_path", type=Path, required=True, help="folder for the images")
    add(
        "--vqgan-root",
        type=Path,
        default=Path("./kyvo-datasets-and-codebooks/vqgan-models-and-codebooks"),
        help="folder with one folder of VQGANs per data set",
    )
    add("--batch-size", type=int, default=32, help="images decoded at a time")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to decode")
    choices = ("auto", "fp32", "bf16")
    add("--precision", choices=choices, default="fp32", help="auto: bf16 where it is faster")
    add("--compile", action="store_true", help="compile the decoder: pays off for many images")
    arguments = parser.parse_args(argv)
    files = find_embeddings(arguments.folder_path)
    model = load_vqgan(find_vqgan(arguments.vqgan_root / arguments.vqgan_type))
    device = resolve_device(arguments.device)
    codec = ImageCodec(model, device, arguments.batch_size, arguments.precision, arguments.compile)
    output = arguments.image_output_path
    with folder_lock(output):
        count = decode_embeddings(codec, files, output)
    print(f"{count} images in {output}/GENERATED and {output}/GROUNDTRUTH")


if __name__ == "__main__":
    kyvo.common.cli.run(main)
