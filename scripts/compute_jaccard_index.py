"""Score predicted 3D scenes against the true ones with the Jaccard index."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import kyvo.common.cli
from kyvo.metrics.jaccard import parse_taus, score_scenes
from kyvo.metrics.scene_files import METHODS, find_predictions, load_evaluation
from kyvo.scenes import DEFAULT_SCHEMA, SCHEMAS, get_schema


def main(argv: Sequence[str]) -> None:
    args = _parser().parse_args(argv)
    schema = get_schema(args.dataset)
    predictions = args.predictions_file or find_predictions(args.generated_folder)
    evaluation = load_evaluation(
        predictions,
        args.groundtruth_file or args.groundtruth_folder,
        schema,
        args.method,
        args.dimension_tau,
    )
    scores = score_scenes(evaluation, parse_taus(args.tau, evaluation.rule.taus))
    scores.write(args.output_folder or predictions.parent)
    print(scores.summary())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--tau",
        action="append",
        required=True,
        help="distance below which objects may match, in scene units; repeat it for several, "
        "or give 'paper' for those of the data set's rule (the paper's: 0.05, 0.10, 0.15, 0.20, "
        "0.25) and their mean",
    )
    predicted = parser.add_mutually_exclusive_group(required=True)
    predicted.add_argument(
        "--generated_folder", type=Path, help="folder of a run: holds one predicted_scenes_*.json"
    )
    predicted.add_argument("--predictions_file", type=Path, help="the predictions themselves")
    truth = parser.add_mutually_exclusive_group(required=True)
    truth.add_argument(
        "--groundtruth_folder", type=Path, help="folder of true scenes, laid out as --dataset's"
    )
    truth.add_argument(
        "--groundtruth_file",
        type=Path,
        help="Omni3D JSON file of true scenes, matched by Objectron's rule unless --dataset has "
        "its fields; or the groundtruth_scenes_*.json of a run",
    )
    parser.add_argument(
        "--dataset",
        default=DEFAULT_SCHEMA,
        help=f"what the objects are: {', '.join(SCHEMAS)}, or the path of a schema's .yaml file",
    )
    parser.add_argument(
        "--method", choices=tuple(METHODS), default="kyvo", help="who wrote the predictions"
    )
    parser.add_argument(
        "--dimension_tau",
        type=float,
        help="largest mean error of an object's dimensions, in metres (None: that of the data "
        "set's rule; Objectron: 0.05)",
    )
    parser.add_argument(
        "--output_folder",
        type=Path,
        help="where jaccard_index_tau-TAU.txt and jaccard.json go (None: beside the predictions)",
    )
    return parser


if __name__ == "__main__":
    kyvo.common.cli.run(main)
