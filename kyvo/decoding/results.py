"""Results of a generation run: written as they come, resumable, then laid out as files.

``results.jsonl`` gets one line per finished sample; the same command again goes on with the
missing samples. The files that the metric scripts read are made from it at the end.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kyvo.common.errors import InputError
from kyvo.common.files import JSONLines, check_output_name, read_json_lines, write_array, write_json
from kyvo.data.dataset import KyvoDataset
from kyvo.decoding.outputs import Generated, OutputReader, decode_with_markers
from kyvo.scenes import ParseReport
from kyvo.tokens.sequences import Segment

_IMAGE_KINDS = ("generated", "ground_truth")
# A sample's share of the log and of the JSON files, generously.
_BYTES_OF_TEXT = 8192


class ResultsLog:
    """The append-only log of what was generated, one JSON line per sample."""

    def __init__(self, path: Path, run: Mapping[str, Any], keys: np.ndarray) -> None:
        """Open or create the log.

        Args:
            run: describes what makes results comparable.
            keys: of the data set's samples, which the log's lines must have too.

        Raises:
            InputError: the log was written by a run with other settings or data, or is damaged.
        """
        lines = check_log(path, run)
        self._done = dict(_read_entry(line, keys, path) for line in lines[1:])
        self._lines = JSONLines(path, lines or [dict(run)])

    @property
    def done(self) -> dict[int, Generated]:
        """What was generated, by sample index."""
        return self._done

    def add(self, index: int, key: str, generated: Generated) -> None:
        """Append one sample; it survives a crash of the process from here on."""
        line = {"index": index, "key": key, "ids": generated.ids.tolist()}
        if generated.values is not None:
            line["values"] = generated.values  # NaN is written as null
        self._lines.add(line)
        self._done[index] = generated

    def close(self) -> None:
        """Flush to disk and close."""
        self._lines.close()


def check_log(path: Path, run: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The lines of a log; InputError, with both values, if another setup wrote it."""
    lines = list(read_json_lines(path, "results")) if path.is_file() else []
    found = lines[0] if lines else {}
    changed = [
        f"{key}: then {found.get(key)!r}, now {run.get(key)!r}"
        for key in {**found, **run}
        if lines and found.get(key) != run.get(key)
    ]
    if changed:
        raise InputError(
            f"results: {path} was made with another setup:\n    "
            + "\n    ".join(changed)
            + "\n    Choose another run_identifier, or delete that folder."
        )
    return lines


def _read_entry(line: Any, keys: np.ndarray, path: Path) -> tuple[int, Generated]:
    """Index and content of one line."""
    try:
        index, key, ids = line["index"], line["key"], np.array(line["ids"])
        values = np.array(line["values"], np.float32) if "values" in line else None
        if (
            keys[index].decode() == key
            and ids.ndim == 1
            and (not ids.size or ids.dtype == np.int64)
            and (values is None or values.shape == ids.shape)
        ):
            return int(index), Generated(ids.astype(np.int64), values)
    except (TypeError, KeyError, IndexError, ValueError):
        pass
    raise InputError(
        f"results: {path}: the line {str(line)[:80]} is none of this data set. Delete the file "
        "and run again."
    )


@dataclass(frozen=True)
class ResultFiles:
    """Lays a run's results out as the released evaluation files (formats of the data set)."""

    run_identifier: str
    three_d_folder: Path
    image_folder: Path
    reader: OutputReader
    dataset: KyvoDataset
    codebook: np.ndarray

    def check_names(self, indices: Sequence[int]) -> None:
        """Refuse, before anything is generated, keys that cannot be part of a file name.

        Raises:
            InputError: naming the file.
        """
        if self.writes_images:
            for index in indices:
                self._image_path("ground_truth", index)

    @property
    def writes_images(self) -> bool:
        """Whether the run's task has images among its outputs."""
        return any(segment.modality == "image" for segment in self.reader.task.outputs)

    def image_paths(self, indices: Sequence[int]) -> set[Path]:
        """Where the generated and the true image codes of ``indices`` go."""
        return {self._image_path(kind, i) for kind in _IMAGE_KINDS for i in indices}

    def size(self, num_samples: int) -> int:
        """About how many bytes the results of ``num_samples`` will take."""
        images = sum(segment.modality == "image" for segment in self.reader.task.outputs)
        array = self.reader.codes_per_image * self.codebook.shape[1] * self.codebook.itemsize
        return num_samples * (images * len(_IMAGE_KINDS) * array + _BYTES_OF_TEXT)

    def write(self, results: dict[int, Generated]) -> ParseReport:
        """Write every file for ``results``, by sample index; returns what was unreadable."""
        report = ParseReport()
        predicted: list[dict[str, Any]] = []
        answers: list[dict[str, Any]] = []
        indices = sorted(results)
        for index in indices:
            output = self.reader.read(results[index].ids, results[index].values)
            report.add(output.report)
            if output.scene is not None:
                objects = self.reader.codec.schema.scene_to_json(output.scene)
                predicted.append(self._entry(index, "predicted", objects=objects))
            if output.answer is not None:
                answers.append(self._entry(index, "predicted", answer=output.answer))
            if output.codes is not None:
                self._write_image("generated", index, output.codes)
            elif self.writes_images:
                # Of an earlier run, perhaps: it must not pass for this one's.
                self._image_path("generated", index).unlink(missing_ok=True)
        if predicted:
            self._write_scenes("predicted", predicted)
        if answers:
            self._write_json("predicted_answers", {"answers": answers})
        self._write_references(indices)
        write_json(self.three_d_folder / "parse_report.json", report.as_dict())
        return report

    def _write_references(self, indices: list[int]) -> None:
        """Ground truth and original scenes, true image codes and true answers."""
        for segment in self.reader.task.outputs:
            if segment.modality == "image":
                for index in indices:
                    self._write_image("ground_truth", index, self.dataset.content(segment, index))
            elif segment.modality == "three_d":
                self._write_scenes("groundtruth", list(self._stored_scenes(segment, indices)))
            else:
                entries = [
                    self._entry(i, "groundtruth", answer=self._stored_text(segment, i))
                    for i in indices
                ]
                self._write_json("groundtruth_answers", {"answers": entries})
        source = Segment("three_d", "source")
        if source in self.dataset.stores:
            self._write_scenes("original", list(self._stored_scenes(source, indices, "original")))

    def _stored_scenes(
        self, segment: Segment, indices: list[int], kind: str = "groundtruth"
    ) -> Iterator[dict[str, Any]]:
        for index in indices:
            scene, _ = self.reader.codec.read(self.dataset.content(segment, index).tolist())
            objects = self.reader.codec.schema.scene_to_json(scene)
            yield self._entry(index, kind, objects=objects)

    def _stored_text(self, segment: Segment, index: int) -> str:
        eos = self.reader.codec.vocabulary.eos
        ids = self.dataset.content(segment, index).tolist()
        return decode_with_markers([*ids, eos], self.reader.codec)

    def _entry(self, index: int, kind: str, **content: Any) -> dict[str, Any]:
        return {"image_filename": f"{kind}_scene_{index}", **content, "key": self.name(index)}

    def name(self, index: int) -> str:
        """The sample's name in result files: its key, or what the schema says names it."""
        name_field = self.reader.codec.schema.name_field
        segment = Segment("three_d", "source")
        if name_field and segment in self.dataset.stores:
            string = self.dataset.string(segment, index)
            if isinstance(string, dict) and name_field in string:
                return str(string[name_field])
        return str(self.dataset.keys[index].decode())

    def _write_scenes(self, kind: str, scenes: list[dict[str, Any]]) -> None:
        self._write_json(f"{kind}_scenes", {"scenes": scenes})

    def _write_json(self, stem: str, value: Any) -> None:
        write_json(self.three_d_folder / f"{stem}_{self.run_identifier}.json", value)

    def _write_image(self, kind: str, index: int, codes: np.ndarray) -> None:
        """Codebook vectors of the codes, float32 (C, side, side), raster order."""
        side = round(len(codes) ** 0.5)
        vectors = self.codebook[codes].T.reshape(-1, side, side)
        # Not flushed one by one: the whole set can be made again from the log.
        write_array(self._image_path(kind, index), vectors, durable=False)

    def _image_path(self, kind: str, index: int) -> Path:
        key = self.dataset.keys[index].decode()
        name = f"{kind}_image_tokens_{self.run_identifier}_{key}_{index}.npy"
        return self.image_folder / check_output_name(name, "dataset key in an output file's name")
