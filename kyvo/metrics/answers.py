"""Accuracy of answers to questions: equal strings after the markers are taken off."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kyvo.errors import InputError
from kyvo.files import read_json, write_json
from kyvo.metrics.fields import expect, take

_MARKERS = ("[TEXT-START]", "[TEXT-END]", "<|end_of_text|>")


@dataclass(frozen=True)
class AnswerScores:
    """Which questions were answered rightly; a question without an answer is answered wrongly."""

    correct: Mapping[str, bool]
    num_unanswered: int

    @property
    def accuracy(self) -> float:
        """Share of right answers among all questions, in [0, 1]."""
        return sum(self.correct.values()) / len(self.correct)

    @property
    def answered_accuracy(self) -> float:
        """Share of right answers among the answered questions: what the released code reports."""
        return sum(self.correct.values()) / (len(self.correct) - self.num_unanswered)

    def summary(self) -> str:
        """The figures as lines of text."""
        right, total = sum(self.correct.values()), len(self.correct)
        lines = [f"Accuracy: {100 * self.accuracy:.2f}% ({right} of {total} questions)"]
        if self.num_unanswered:
            lines.append(
                f"{self.num_unanswered} questions have no answer and count as wrong; "
                f"of the answered ones {100 * self.answered_accuracy:.2f}% are right"
            )
        return "\n".join(lines)

    def write(self, folder: Path | str) -> None:
        """Write ``accuracy.json``, with every question's outcome, into ``folder``."""
        write_json(
            Path(folder) / "accuracy.json",
            {
                "accuracy": self.accuracy,
                "answered_accuracy": self.answered_accuracy,
                "num_unanswered": self.num_unanswered,
                "correct": dict(self.correct),
            },
        )


def score_answers(predicted_file: Path | str, groundtruth_file: Path | str) -> AnswerScores:
    """Compare predicted with true answers, matched by key.

    Both files may be ``{"answers": [{"key", "answer"}]}`` or ``{key: {"string": ...}}``.

    Raises:
        InputError: a file is missing or malformed, or a predicted key is not a question's.
    """
    predicted = read_answers(predicted_file, "predicted answers")
    groundtruth = read_answers(groundtruth_file, "true answers")
    unknown = [key for key in predicted if key not in groundtruth]
    if unknown:
        raise InputError(
            f"true answers: {groundtruth_file}: {len(unknown)} of {len(predicted)} predicted keys "
            f"are not there, the first is {unknown[0]!r:.120}. Check that the two files match."
        )
    correct = {key: predicted.get(key) == answer for key, answer in groundtruth.items()}
    return AnswerScores(correct, len(groundtruth) - len(predicted))


def read_answers(path: Path | str, purpose: str) -> dict[str, str]:
    """Read the answers of a file as ``{key: answer}``, without markers and outer blanks.

    Raises:
        InputError: the file is missing, malformed or empty, or a key stands there twice.
    """
    place = f"{purpose}: {path}"
    root = expect(read_json(path, purpose), dict, place)
    rows = root.get("answers")
    if isinstance(rows, list):
        places = [f"{place}: answers[{index}]" for index in range(len(rows))]
        pairs = [
            (take(row, "key", str, where), take(row, "answer", str, where))
            for row, where in zip(rows, places, strict=True)
        ]
    else:
        pairs = [(key, take(row, "string", str, f"{place}: {key}")) for key, row in root.items()]
    answers = {key: _strip(text) for key, text in pairs}
    if not answers or len(answers) < len(pairs):
        found = f"{len(pairs)} answers under {len(answers)} keys"
        raise InputError(f"{place}: {found}; expected one answer per key, and at least one.")
    return answers


def _strip(text: str) -> str:
    for marker in _MARKERS:
        text = text.replace(marker, "")
    return text.strip()
