"""Make a world of ships in a harbour seen from above: images and scenes, as your own data could be.

python3 docs/own-scenes/make_harbour.py --output FOLDER --splits train:5000 test:100
"""

import argparse
import json
import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

SIDE, METRES = 64, 1000  # the image's side in pixels, and what it shows
COLORS = {"red": (214, 60, 50), "green": (60, 150, 70), "yellow": (240, 200, 60)}
# Half width of the hull as a share of its length, and where its bow begins to narrow.
HULLS = {"ferry": (0.3, 0.45), "tanker": (0.15, 0.35), "yacht": (0.22, -0.5)}


def main(argv: Sequence[str]) -> None:
    """Parse, and write SPLIT/images/NAME.png with SPLIT/scenes/NAME.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of the world")
    parser.add_argument("--splits", nargs="+", required=True, help="NAME:COUNT of each split")
    arguments = parser.parse_args(argv)
    for split, count in (text.split(":") for text in arguments.splits):
        for index in range(int(count)):
            name = f"harbour_{split}_{index:04d}"
            ships = make_ships(random.Random(name))
            write(arguments.output / split, name, ships)
        print(f"{count} scenes in {arguments.output / split}")


def make_ships(source: random.Random) -> list[dict[str, Any]]:
    """One to three ships, from north to south, away from the edges and from each other."""
    bands = source.sample([2, 5, 8], source.randint(1, 3))
    return [
        {
            "type": source.choice(list(HULLS)),
            "flag_color": source.choice(list(COLORS)),
            "position": [round(source.uniform(1.5, 8.5), 2), round(band + source.random() / 2, 2)],
            "heading": [source.randrange(360)],
            "length": [source.randrange(120, 201)],
        }
        for band in sorted(bands, reverse=True)
    ]


def write(folder: Path, name: str, ships: list[dict[str, Any]]) -> None:
    """The image and the scene of one harbour."""
    for kind in ("images", "scenes"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    scene = {"image_filename": f"{name}.png", "objects": ships}
    (folder / "scenes" / f"{name}.json").write_text(json.dumps(scene, indent=1) + "\n")
    image = Image.new("RGB", (SIDE, SIDE), (40, 90, 140))
    draw = ImageDraw.Draw(image)
    for ship in ships:
        draw.polygon(outline(ship), fill=COLORS[ship["flag_color"]])
    image.save(folder / "images" / f"{name}.png", optimize=True)


def outline(ship: dict[str, Any]) -> list[tuple[float, float]]:
    """The hull's corners in pixels; heading 0 is north, which is up, and turns clockwise."""
    width, shoulder = HULLS[ship["type"]]
    corners = [(-width, -0.5), (-width, shoulder), (0, 0.5), (width, shoulder), (width, -0.5)]
    turn = math.radians(ship["heading"][0])
    east, north = (100 * value for value in ship["position"])
    points = []
    for across, along in ((x * ship["length"][0], y * ship["length"][0]) for x, y in corners):
        right = east + across * math.cos(turn) + along * math.sin(turn)
        up = north - across * math.sin(turn) + along * math.cos(turn)
        points.append((right * SIDE / METRES, SIDE - up * SIDE / METRES))
    return points


if __name__ == "__main__":
    main(sys.argv[1:])
