"""What a generated sequence says: its scene, image codes and text, and everything wrong with it.

Reading is total: whatever the ids are, nothing raises and nothing is dropped without being
counted under a reason.
"""

from dataclasses import dataclass, field

import numpy as np

from kyvo.images.order import centre_first
from kyvo.scenes import ParseReport, SceneCodec, SceneObject
from kyvo.sequences import CentreFirst, Segment, Task
from kyvo.vocabulary import (
    IMAGE_END,
    IMAGE_START,
    SCENE_END,
    SCENE_START,
    TEXT_END,
    TEXT_START,
    Vocabulary,
)

_BRACKETS = {
    "image": (IMAGE_START, IMAGE_END),
    "three_d": (SCENE_START, SCENE_END),
    "text": (TEXT_START, TEXT_END),
}


@dataclass(frozen=True)
class Output:
    """A read output.

    Attributes:
        objects: the scene's objects; None if the task writes no scene.
        codes: image codes in raster order, int64 (n,); None if there is no whole image.
        answer: the text with its markers and the end token, as the result files have it.
    """

    objects: list[SceneObject] | None
    codes: np.ndarray | None
    answer: str | None
    report: ParseReport = field(default_factory=ParseReport)


@dataclass(frozen=True)
class OutputReader:
    """Reads the outputs of one task."""

    task: Task
    codec: SceneCodec
    codes_per_image: int
    centre_first: CentreFirst

    def read(self, ids: np.ndarray) -> Output:
        """Split ``ids`` (everything after OUTPUT-START) into the task's outputs."""
        vocabulary = self.codec.vocabulary
        ends = np.flatnonzero(ids == vocabulary.eos)
        report = ParseReport()
        if not len(ends):
            report.reasons["no end of sequence"] += 1
        body = ids[: ends[0]] if len(ends) else ids
        objects = codes = answer = None
        for segment in self.task.outputs:
            part = _between(body, *_BRACKETS[segment.modality], vocabulary)
            if segment.modality == "image":
                codes = self._read_image(part, segment, report)
            elif segment.modality == "three_d":
                objects, scene_report = self.codec.read(part.tolist())
                report.add(scene_report)
            else:
                answer = self._read_text(part, bool(len(ends)))
        return Output(objects, codes, answer, report)

    def _read_image(
        self, part: np.ndarray, segment: Segment, report: ParseReport
    ) -> np.ndarray | None:
        """Codes in raster order, or None and a reason."""
        image = self.codec.vocabulary.image
        inner = part[1:-1]
        if len(part) < 2 or part[-1] != self.codec.vocabulary.marker_id(IMAGE_END):
            report.reasons["image without its markers"] += 1
        elif len(inner) != self.codes_per_image:
            report.reasons["image with a wrong number of codes"] += 1
        elif not ((inner >= image.start) & (inner < image.stop)).all():
            report.reasons["image with a token that is no image code"] += 1
        else:
            codes = inner - image.start
            if self.task.is_centre_first(segment, self.centre_first):
                raster = np.empty_like(codes)
                raster[centre_first(len(codes))] = codes
                return raster
            return codes
        return None

    def _read_text(self, part: np.ndarray, has_end: bool) -> str:
        tokens = part.tolist() + ([self.codec.vocabulary.eos] if has_end else [])
        return decode_with_markers(tokens, self.codec)


def decode_with_markers(ids: list[int], codec: SceneCodec) -> str:
    """Text of ``ids`` with markers and numbers by name, such as ``[TEXT-START] yes[TEXT-END]``."""
    vocabulary = codec.vocabulary
    pieces: list[str] = []
    pending: list[int] = []
    for token in [*ids, None]:
        if token is not None and token in vocabulary.text:
            pending.append(token)
            continue
        if pending:
            pieces.append(codec.tokenizer.decode(pending))
            pending = []
        if token is not None:
            pieces.append(vocabulary.token_string(token) or f"<{token}>")
    return "".join(pieces)


def _between(ids: np.ndarray, start: str, end: str, vocabulary: Vocabulary) -> np.ndarray:
    """From the first ``start`` marker to the first ``end`` after it; all ids if none starts."""
    starts = np.flatnonzero(ids == vocabulary.marker_id(start))
    first = int(starts[0]) if len(starts) else 0
    ends = np.flatnonzero(ids[first:] == vocabulary.marker_id(end))
    stop = first + int(ends[0]) + 1 if len(ends) else len(ids)
    return ids[first:stop]
