"""A look into a data set: are its codes of the run's codebook, do its scenes read back?"""

from kyvo.common.errors import InputError, Problems
from kyvo.data.batches import BatchSource
from kyvo.data.dataset import KyvoDataset
from kyvo.scenes import ParseReport, SceneCodec
from kyvo.tokens.sequences import Segment

_NUM_SCENES = 100
DATA_REMEDY = "Fetch the released data set with scripts/download_data.py, or set data_root"


def check_image_codes(dataset: BatchSource, codebook_sha256: str, owner: str) -> None:
    """Refuse image codes that are recorded to be of another codebook than the run's.

    Args:
        codebook_sha256: ``codebook_hash`` of the run's codebook.
        owner: what has that codebook, for the message.

    Raises:
        InputError: listing everything that has such codes.
    """
    problems = Problems()
    for place, found in dataset.codebooks().items():
        if found not in (None, codebook_sha256):
            problems.add(
                f"{place}: codes of the codebook with SHA-256 {found}, but {owner} has "
                f"{codebook_sha256}. "
                "Give the codebook of the same VQGAN, or tokenise the images with the other."
            )
    problems.raise_any()


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
