"""Fetch the released data set, or parts of it, and verify every file.

python3 scripts/download_data.py --datasets clevr --parts pretokenized vqgan
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import kyvo.common.cli
from kyvo.prepare.download import RELEASED_REPOSITORY, choose, download, list_files, verify
from kyvo.prepare.layout import PARTS


def main(argv: Sequence[str]) -> None:
    """Parse, list, fetch or verify, print what is there."""
    arguments = _parse(argv)
    files = list_files(arguments.repository, arguments.revision)
    files = choose(files, arguments.parts, arguments.datasets)
    if arguments.dry_run:
        print(*(f"{file.size:>15,}  {file.path}" for file in files), sep="\n")
    elif arguments.verify_only:
        verify(files, arguments.output, arguments.workers)
    else:
        download(files, arguments.output, arguments.workers)
    total = sum(file.size for file in files)
    state = "in this choice" if arguments.dry_run else f"verified in {arguments.output}"
    print(f"{len(files):,} files, {total:,} bytes, {state}")


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    output = Path("./kyvo-datasets-and-codebooks")
    add("--output", type=Path, default=output, help="folder for the data set")
    add("--datasets", nargs="+", default=[], help="folders such as clevr; all if not given")
    add("--parts", nargs="+", choices=PARTS, default=[], help="parts; all if not given")
    add("--repository", default=RELEASED_REPOSITORY, help="data set on the Hugging Face hub")
    add("--revision", help="branch, tag or commit; the main branch if not given")
    add(
        "--workers",
        type=int,
        choices=range(1, 33),
        metavar="N",
        default=8,
        help="files fetched or checked at a time, 1 to 32",
    )
    mode = parser.add_mutually_exclusive_group().add_argument
    mode("--dry-run", action="store_true", help="print files and sizes, fetch nothing")
    mode("--verify-only", action="store_true", help="check what is there, fetch nothing")
    return parser.parse_args(argv)


if __name__ == "__main__":
    kyvo.common.cli.run(main)
