"""Score generated images against the true ones with SSIM and L2."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import kyvo.common.cli
from kyvo.metrics.images import score_images


def main(argv: Sequence[str]) -> None:
    args = _parser().parse_args(argv)
    scores = score_images(args.generated_folder, args.groundtruth_folder)
    scores.write(args.output_folder)
    print(scores.summary())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--generated_folder", type=Path, required=True, help="images named generated_NAME.png"
    )
    parser.add_argument(
        "--groundtruth_folder",
        type=Path,
        required=True,
        help="true images named NAME.png, or folders of ObjaWorld's environments",
    )
    parser.add_argument(
        "--output_folder", type=Path, required=True, help="where ssim_l2.txt and ssim_l2.json go"
    )
    return parser


if __name__ == "__main__":
    kyvo.common.cli.run(main)
