"""Show what a model does with new scenes: one HTML file, a section for each of its tasks.

    python3 scripts/show_model.py --checkpoint mini --output model.html

The scenes are drawn and rendered now, from the split that no training can draw.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import kyvo
import kyvo.common.cli
from kyvo.report.page import write_page
from kyvo.showcase import Showcase

_EXPLANATION = (
    "The model reads and writes images, scenes and words. These scenes were drawn and rendered a "
    "moment ago, from a part of the world that its training cannot draw. The first ones are shown, "
    "not the best."
)


def main(argv: Sequence[str]) -> None:
    """Parse, ask, write."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, default=Path("mini"), help="run, folder or mini")
    parser.add_argument("--output", type=Path, default=Path("model.html"), help="file to write")
    parser.add_argument("--count", type=int, default=5, help="items of each task")
    parser.add_argument("--seed", type=int, default=1, help="of scenes and noise")
    parser.add_argument(
        "--object-order",
        default="near-to-far",
        choices=["file", "far-to-near", "near-to-far"],
        help="of a scene that the model reads: that of its training",
    )
    args = parser.parse_args(argv)
    model = kyvo.load(args.checkpoint)
    showcase = Showcase(model, args.count, args.seed, args.object_order)
    sections, heads = zip(*showcase.parts(), strict=True)
    shown = [head for head in heads if head is not None]
    title = f"Kyvo: {args.checkpoint.name}"
    write_page(args.output, title, _EXPLANATION, shown, sections)
    print(f"report: {args.output.resolve()}")


if __name__ == "__main__":
    kyvo.common.cli.run(main)
