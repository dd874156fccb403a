"""Check own data before training on it: every problem, with file, key and place.

    python3 scripts/validate_data.py --world FOLDER --schema FILE --vocabulary FILE
    python3 scripts/validate_data.py --data FOLDER --schema FILE --vocabulary FILE

--world takes images and scenes, and the instructions or questions that make_world.py writes
beside them; --data what tokenize_world.py made of them. Exit status 1 with the list of problems,
or 0 with a summary of what is there.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import kyvo.common.cli
from kyvo.prepare.layout import ReleasedLayout
from kyvo.prepare.validation import Findings, check_codec, check_tokens, check_world
from kyvo.scenes import SceneCodec, get_schema
from kyvo.tokens.text_tokenizer import load_text_tokenizer
from kyvo.tokens.vocabulary import get_vocabulary


def main(argv: Sequence[str]) -> None:
    """Parse, check, print the summary."""
    arguments = _parse(argv)
    vocabulary = get_vocabulary(arguments.vocabulary)
    codec = SceneCodec(
        get_schema(arguments.schema),
        vocabulary,
        load_text_tokenizer(arguments.tokenizer, vocabulary),
    )
    findings = Findings(arguments.limit)
    check_codec(codec, findings)
    findings.raise_any()
    lines: list[str] = []
    if arguments.world is not None:
        lines += check_world(arguments.world, arguments.splits, codec, findings)
    if arguments.data is not None:
        layout = ReleasedLayout(arguments.data, arguments.dataset, arguments.suffix)
        lines += check_tokens(layout, arguments.splits, codec, findings, arguments.codes_per_image)
    findings.raise_any()
    print("\n".join([*lines, "no problems"]))


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--world", type=Path, help="a world: own SPLIT/images and SPLIT/scenes, or make_world's")
    add("--data", type=Path, help="root of pretokenised data, as tokenize_world.py writes it")
    add("--dataset", default="clevr", help="name of the data set's folders under --data")
    add(
        "--suffix",
        default=ReleasedLayout.suffix,
        help="ends the names of image and scene files under --data; '' for none; for_vqa, source "
        "and target go with questions and instructions",
    )
    add("--splits", nargs="+", default=["train", "test"], help="splits to check")
    add("--schema", default="clevr", help="scene schema: a name, or a .yaml file")
    add("--vocabulary", default="clevr", help="vocabulary: a name, or a .yaml file")
    add("--tokenizer", type=Path, help="text tokenizer file; not needed for 'mini'")
    add("--codes-per-image", type=int, help="codes of every image; None: as most have")
    add("--limit", type=int, default=50, help="problems reported in words; the others are counted")
    arguments = parser.parse_args(argv)
    if arguments.world is None and arguments.data is None:
        parser.error("nothing to check: give --world, --data or both")
    return arguments


if __name__ == "__main__":
    kyvo.common.cli.run(main)
