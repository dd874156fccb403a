"""Accuracy of answers to questions: equal strings after the markers are taken off."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from kyvo.common.errors import InputError
from kyvo.common.files import list_files, read_json, write_json
from kyvo.metrics.fields import expect, take

_MARKERS = ("[TEXT-START]", "[TEXT-END]", "<|end_of_text|>")
_TRUTHS = ("yes", "no")


@dataclass(frozen=True)
class AnswerScores:
    """Which questions were answered rightly; a question without an answer is answered wrongly.

    Attributes:
        predicted: answers by key.
        groundtruth: answers of all questions, by key.
        groupings: by the name of a way to group the questions, the group of every key.
    """

    predicted: Mapping[str, str]
    groundtruth: Mapping[str, str]
    groupings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @cached_property
    def correct(self) -> Mapping[str, bool]:
        """Whether each question was answered rightly, by key."""
        return {key: self.predicted.get(key) == true for key, true in self.groundtruth.items()}

    @property
    def num_unanswered(self) -> int:
        """How many questions have no answer."""
        return len(self.groundtruth) - len(self.predicted)

    @property
    def accuracy(self) -> float:
        """Share of right answers among all questions, in [0, 1]."""
        return sum(self.correct.values()) / len(self.correct)

    @property
    def answered_accuracy(self) -> float:
        """Share of right answers among the answered questions: what the released code reports."""
        return sum(self.correct.values()) / (len(self.correct) - self.num_unanswered)

    def counts_by(self, grouping: str) -> dict[str, tuple[int, int]]:
        """Right answers and questions of each group, in the order of the groups' names."""
        groups = self.groupings[grouping]
        total = Counter(groups[key] for key in self.correct)
        right = Counter(groups[key] for key, is_right in self.correct.items() if is_right)
        return {group: (right[group], total[group]) for group in sorted(total)}

    def summary(self) -> str:
        """The values as lines of text."""
        right, total = sum(self.correct.values()), len(self.correct)
        lines = [f"Accuracy: {_share(right, total)}"]
        if self.num_unanswered:
            lines.append(
                f"{self.num_unanswered} questions have no answer and count as wrong; "
                f"of the answered ones {100 * self.answered_accuracy:.2f}% are right"
            )
        for name in self.groupings:
            lines.append(f"By {name}:")
            lines += [f"  {g}: {_share(*counts)}" for g, counts in self.counts_by(name).items()]
        return "\n".join(lines)

    def write(self, folder: Path | str) -> None:
        """Write ``accuracy.json``, with groups and every question's outcome, into ``folder``."""
        groups = {
            f"by_{name.replace(' ', '_')}": {
                group: {"accuracy": right / total, "right": right, "total": total}
                for group, (right, total) in self.counts_by(name).items()
            }
            for name in self.groupings
        }
        write_json(
            Path(folder) / "accuracy.json",
            {
                "accuracy": self.accuracy,
                "answered_accuracy": self.answered_accuracy,
                "num_unanswered": self.num_unanswered,
                **groups,
                "correct": dict(self.correct),
            },
        )


def score_answers(
    predicted_file: Path | str, groundtruth_file: Path | str, questions: Path | str | None = None
) -> AnswerScores:
    """Compare predicted with true answers, matched by key.

    Both files may be ``{"answers": [{"key", "answer"}]}`` or ``{key: {"string": ...}}``.

    Args:
        questions: where the families of the questions are (see ``read_families``), to score each
            family and each type of answer too.

    Raises:
        InputError: a file is missing or malformed, a predicted key is not a question's, or a
            question has no family.
    """
    predicted = read_answers(predicted_file, "predicted answers")
    groundtruth = read_answers(groundtruth_file, "true answers")
    unknown = [key for key in predicted if key not in groundtruth]
    if unknown:
        raise InputError(
            f"true answers: {groundtruth_file}: {len(unknown)} of {len(predicted)} predicted keys "
            f"are not there, the first is {unknown[0]!r:.120}. Check that the two files match."
        )
    groupings = {}
    if questions is not None:
        types = {key: answer_type(answer) for key, answer in groundtruth.items()}
        groupings = {"family": read_families(questions, groundtruth), "answer type": types}
    return AnswerScores(predicted, groundtruth, groupings)


def answer_type(answer: str) -> str:
    """What an answer is, in the terms of the questions' templates: a truth, a number or a word."""
    if answer in _TRUTHS:
        return "truth"
    return "number" if answer.isdecimal() else "word"


def read_families(path: Path | str, keys: Collection[str]) -> dict[str, str]:
    """The families of the questions ``keys``.

    Args:
        path: a world's SPLIT/questions with a file NAME.json for the key NAME.png, or one file
            ``{key: {"family": ...}}``; other keys are left alone.

    Raises:
        InputError: a file is missing or malformed, or a question is not there.
    """
    purpose, path = "families of questions", Path(path)
    place = f"{purpose}: {path}"
    if path.is_dir():
        places = {f"{file.stem}.png": file for file in list_files(path, (".json",))}
        rows = {key: read_json(places[key], purpose) for key in keys if key in places}
    else:
        rows = expect(read_json(path, purpose), dict, place)
    families = {
        key: take(rows[key], "family", str, f"{place}: {key}") for key in keys if key in rows
    }
    missing = [key for key in keys if key not in families]
    if missing:
        raise InputError(
            f"{place}: {len(missing)} questions are not there, the first is {missing[0]!r:.120}. "
            "Check that they are of the same test set."
        )
    return families


def read_answers(path: Path | str, purpose: str) -> dict[str, str]:
    """Read the answers of a file as ``{key: answer}``, without markers and outer blanks.

    Raises:
        InputError: the file is missing, malformed or empty, or a key is there twice.
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


def _share(right: int, total: int) -> str:
    return f"{100 * right / total:.2f}% ({right} of {total} questions)"
