"""A look into a data set: do its scenes read back under the schema and vocabulary of the run?"""

from kyvo.common.errors import InputError
from kyvo.data.dataset import KyvoDataset
from kyvo.scenes import ParseReport, SceneCodec
from kyvo.tokens.sequences import Segment

_NUM_SCENES = 100
DATA_REMEDY = "Fetch the released data set with scripts/download_data.py, or set data_root"


def check_scenes(dataset: KyvoDataset, codec: SceneCodec) -> ParseReport:
    """Read the first scenes of every file of scenes.

    Raises:
        InputError: most objects of a file cannot be read: it was tokenised for something else.
    """
    total = ParseReport()
    for segment in dataset.stores:
        if segment.modality == "three_d":
            total.add(_check_file(dataset, segment, codec))
    return total


def _check_file(dataset: KyvoDataset, segment: Segment, codec: SceneCodec) -> ParseReport:
    report = ParseReport()
    for index in range(min(len(dataset), _NUM_SCENES)):
        report.add(codec.read(dataset.content(segment, index).tolist())[1])
    if report.num_complete < report.num_objects / 2 or (report.reasons and not report.num_objects):
        reason, count = report.reasons.most_common(1)[0]
        raise InputError(
            f"{segment.source_name}: {dataset.stores[segment].path}: of the first "
            f"{report.num_objects} objects only {report.num_complete} can be read under schema "
            f"'{codec.schema.name}' and vocabulary '{codec.vocabulary.name}' ({count} x {reason}). "
            "Check scene_schema, vocabulary and tokenizer, or tokenise the scenes again."
        )
    return report
