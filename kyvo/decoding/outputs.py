"""What a generated sequence says: its scene, image codes and text, and everything wrong with it.

Reading is total: whatever the ids are, nothing raises and nothing is dropped without being
counted under a reason.
"""

from dataclasses import dataclass, field

import numpy as np

from kyvo.decoding.numbers import Generated
from kyvo.images.order import centre_first
from kyvo.scenes import ParseReport, Scene, SceneCodec
from kyvo.tokens.sequences import CentreFirst, Segment, Task


@dataclass(frozen=True)
class Output:
    """A read output.

    Attributes:
        scene: None if the task writes no scene.
        codes: image codes in raster order, int64 (n,); None if there is no whole image.
        answer: the text with its markers and the end token, as the result files have it.
    """

    scene: Scene | None
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

    def read(self, generated: Generated) -> Output:
        """Split what was generated after OUTPUT-START into the task's outputs."""
        ids, values = generated.ids, generated.values
        ends = np.flatnonzero(ids == self.codec.vocabulary.eos)
        has_end = len(ends) > 0
        body = ids[: ends[0]] if has_end else ids
        report = ParseReport()
        scene = codes = answer = None
        is_read = np.zeros(len(body), dtype=bool)
        for segment in self.task.outputs:
            place = _place(body, self.codec.vocabulary.brackets(segment.modality))
            is_read[place] = True
            if segment.modality == "image":
                codes = self._read_image(body[place], segment, report)
            elif segment.modality == "three_d":
                numbers = values[place].tolist() if values is not None else None
                scene, scene_report = self.codec.read(body[place].tolist(), numbers)
                report.add(scene_report)
            else:
                answer = self._read_text(body[place], segment, has_end, report)
        report.reasons.update(
            {
                "no end of sequence": int(not has_end),
                "token outside the outputs": int((~is_read).sum()),
                "token after the end of sequence": len(ids) - len(body) - has_end,
            }
        )
        report.reasons = +report.reasons
        return Output(scene, codes, answer, report)

    def _read_image(
        self, part: np.ndarray, segment: Segment, report: ParseReport
    ) -> np.ndarray | None:
        """Codes in raster order, or None and a reason."""
        image = self.codec.vocabulary.image
        codes = part[1:-1] - image.start
        if not _is_whole(part, self.codec.vocabulary.brackets(segment.modality)):
            report.reasons["image without its markers"] += 1
        elif len(codes) != self.codes_per_image:
            report.reasons["image with a wrong number of codes"] += 1
        elif not ((codes >= 0) & (codes < image.size)).all():
            report.reasons["image with a token that is no image code"] += 1
        elif self.task.is_centre_first(segment, self.centre_first):
            raster = np.empty_like(codes)
            raster[centre_first(len(codes))] = codes
            return raster
        else:
            return codes
        return None

    def _read_text(
        self, part: np.ndarray, segment: Segment, has_end: bool, report: ParseReport
    ) -> str:
        if not _is_whole(part, self.codec.vocabulary.brackets(segment.modality)):
            report.reasons["text without its markers"] += 1
        return decode_with_markers(
            part.tolist() + [self.codec.vocabulary.eos] * has_end, self.codec
        )


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


def _place(ids: np.ndarray, brackets: tuple[int, int]) -> slice:
    """From the first start marker to the first end marker after it; all ids if none starts."""
    starts = np.flatnonzero(ids == brackets[0])
    first = int(starts[0]) if len(starts) else 0
    ends = np.flatnonzero(ids[first:] == brackets[1])
    return slice(first, first + int(ends[0]) + 1 if len(ends) else len(ids))


def _is_whole(part: np.ndarray, brackets: tuple[int, int]) -> bool:
    return len(part) > 1 and (part[0], part[-1]) == brackets
