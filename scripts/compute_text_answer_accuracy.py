"""Score predicted answers to questions against the true ones: share of equal strings."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import kyvo.common.cli
from kyvo.metrics.answers import score_answers


def main(argv: Sequence[str]) -> None:
    args = _parser().parse_args(argv)
    scores = score_answers(args.predicted_file, args.groundtruth_file, args.questions)
    scores.write(args.output_folder or args.predicted_file.parent)
    print(scores.summary())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--predicted_file", type=Path, required=True, help="predicted_answers_*.json of a run"
    )
    parser.add_argument(
        "--groundtruth_file",
        type=Path,
        required=True,
        help="true answers: {key: {token_ids, string}} or {answers: [...]}",
    )
    parser.add_argument(
        "--questions",
        type=Path,
        help="a world's SPLIT/questions, or a file {key: {family}}: to score every family and "
        "type of answer too",
    )
    parser.add_argument(
        "--output_folder",
        type=Path,
        help="where accuracy.json goes (None: beside the predictions)",
    )
    return parser


if __name__ == "__main__":
    kyvo.common.cli.run(main)
