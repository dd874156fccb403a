"""What a report is made from. Everything is optional; what is missing is said in the report."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

from kyvo.scenes import DEFAULT_SCHEMA

EXPLANATION = (
    "A ray tracer made images of small worlds of coloured cubes, spheres and cylinders. A "
    "tokenizer (VQGAN) then learned to write such an image as a short grid of codes, much like "
    "words. Last, a language model learned to go both ways: from an image to the list of its "
    "objects with their colours, materials and places (recognition), and from such a list to the "
    "codes of an image (rendering). Everything shown here was held out: the models never saw "
    "these scenes in training."
)


_OPTIONS: Mapping[Any, Mapping[str, Any]] = {
    str: {"type": str},
    int: {"type": int},
    int | None: {"type": int},
    Path | None: {"type": Path},
    Sequence[str]: {"type": str, "nargs": "*"},
}
"""How argparse reads a field's type."""


@dataclass(frozen=True)
class ReportInputs:
    """The files and words of a report.

    Each field is also a flag of scripts/make_report.py, with the text beside it as help.
    """

    title: Annotated[str, "headline"] = "Images to scenes, scenes to images"
    explanation: Annotated[str, "what was done, in plain words"] = EXPLANATION
    schema: Annotated[str, "what objects are: a schema's name, or its .yaml file"] = DEFAULT_SCHEMA
    predictions: Annotated[Path | None, "predicted_scenes_R.json of the trained model"] = None
    untrained_predictions: Annotated[Path | None, "the same of the untrained model"] = None
    scenes_folder: Annotated[Path | None, "true scenes, NAME.json"] = None
    images_folder: Annotated[Path | None, "true images, NAME.png"] = None
    generated_folder: Annotated[Path | None, "drawn images, generated_NAME.png"] = None
    reconstructed_folder: Annotated[Path | None, "true images through the tokenizer"] = None
    jaccard: Annotated[Path | None, "jaccard.json of the trained model"] = None
    untrained_jaccard: Annotated[Path | None, "the same of the untrained model"] = None
    similarity: Annotated[Path | None, "ssim_l2.json of the trained model"] = None
    untrained_similarity: Annotated[Path | None, "the same of the untrained model"] = None
    reconstruction_similarity: Annotated[Path | None, "the same of the tokenizer"] = None
    accuracy: Annotated[Path | None, "accuracy.json of the trained model"] = None
    untrained_accuracy: Annotated[Path | None, "the same of the untrained model"] = None
    parse_report: Annotated[Path | None, "faults in predictions: {reason: count}"] = None
    untrained_parse_report: Annotated[Path | None, "the same of the untrained model"] = None
    training_logs: Annotated[Sequence[str], "metrics.jsonl of models, as NAME=FILE"] = ()
    vqgan_log: Annotated[Path | None, "metrics.jsonl of the tokenizer"] = None
    codes: Annotated[Path | None, "images as codes: {key: [codes]}"] = None
    num_codes: Annotated[int | None, "size of the codebook; else the highest code"] = None
    timings: Annotated[Path | None, "{stage: seconds}"] = None
    num_examples: Annotated[int, "how many scenes and images to show"] = 8


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add one flag per field of ``ReportInputs`` to a parser."""
    hints = get_type_hints(ReportInputs, include_extras=True)
    for item in fields(ReportInputs):
        kind, text = get_args(hints[item.name])
        flag = f"--{item.name.replace('_', '-')}"
        parser.add_argument(flag, default=item.default, help=text, **_OPTIONS[kind])


def from_flags(args: argparse.Namespace) -> ReportInputs:
    """The inputs that a parser with ``add_flags`` has parsed."""
    return ReportInputs(**{item.name: getattr(args, item.name) for item in fields(ReportInputs)})
