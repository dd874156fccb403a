"""Reading predicted and ground-truth scenes, in the layouts that each data set comes in."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from kyvo.common.errors import InputError
from kyvo.common.files import read_json
from kyvo.metrics.fields import expect, take
from kyvo.metrics.matching import is_scorable
from kyvo.scenes import MatchingRule, Scene, SceneObject, Schema
from kyvo.scenes.presets import OMNI3D

Scenes = dict[str, Scene]
"""Scenes by key."""


@dataclass(frozen=True)
class ScenePair:
    """One scene to score.

    Attributes:
        key: names the scene.
        predicted: None where the model gave no prediction at all.
        groundtruth: the true scene.
    """

    key: str
    predicted: Scene | None
    groundtruth: Scene


@dataclass(frozen=True)
class Evaluation:
    """Everything a score is computed from.

    Attributes:
        schema: what the objects are.
        rule: when two of them count as the same.
        pairs: the scenes to score.
        notes: what was left out of ``pairs`` and why, one line each.
    """

    schema: Schema
    rule: MatchingRule
    pairs: tuple[ScenePair, ...]
    notes: tuple[str, ...] = ()


def find_predictions(folder: Path | str) -> Path:
    """The one ``predicted_scenes_*.json`` in a run's folder.

    Raises:
        InputError: there is none, or there are several.
    """
    found = sorted(Path(folder).glob("predicted_scenes_*.json"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InputError(
            f"predictions: {folder}: expected one predicted_scenes_*.json, found {names}. "
            "Give the folder of a single run, or name the file with --predictions_file."
        )
    return found[0]


def load_evaluation(
    predictions_file: Path | str,
    groundtruth: Path | str,
    schema: Schema,
    method: str = "kyvo",
    dimension_tau: float | None = None,
    keys: Collection[str] | None = None,
) -> Evaluation:
    """Read predictions and ground truth and pair them by key.

    Args:
        predictions_file: a run's predictions, or a detector's (``METHODS``).
        groundtruth: a folder of scene files laid out as the schema says; or one Omni3D JSON file;
            or a run's own ``groundtruth_scenes_*``.
        schema: what the objects are and when two are the same. One without Omni3D's fields gives
            way to Omni3D's own where the ground truth is such a file.
        dimension_tau: bound on the mean error of an object's dimensions; None: the rule's own.
        keys: score only these scenes of a ground truth that is a file; None: all of them.

    Raises:
        InputError: a file is missing or malformed, the schema has no rule, or nothing can be
            paired.
    """
    if Path(groundtruth).is_dir():
        return _pair_with_folder(predictions_file, Path(groundtruth), schema, method)
    place = f"ground truth: {groundtruth}"
    root = expect(read_json(groundtruth, "ground truth"), dict, place)
    truth = _own_truth(root, place, schema) if "scenes" in root else _omni3d(root, place, schema)
    rule = truth.schema.rule
    if dimension_tau is not None:
        rule = rule.with_dimension_tau(dimension_tau)
    return _pair(METHODS[method](predictions_file, truth), truth, rule, keys)


def read_predicted_scenes(path: Path | str, schema: Schema) -> Scenes:
    """Read ``{"scenes": [{"key": ..., "objects": [...]}]}``; objects may be incomplete.

    Raises:
        InputError: the file is missing or malformed, is empty or names a scene twice.
    """
    place = f"predictions: {path}"
    rows = _rows(read_json(path, "predictions"), place)
    return {
        key: _scene(objects, where, lambda item, where: schema.read(expect(item, dict, where)))
        for key, objects, where in rows
    }


@dataclass(frozen=True)
class _TruthFile:
    """Ground truth of one file.

    Attributes:
        schema: what its objects are.
        scenes: by key.
        file_paths, categories: the names behind Omni3D's ids.
    """

    schema: Schema
    scenes: Scenes
    file_paths: Mapping[int, str] = field(default_factory=dict)
    categories: Mapping[int, str] = field(default_factory=dict)


def _pair(
    predicted: Scenes, truth: _TruthFile, rule: MatchingRule, keys: Collection[str] | None
) -> Evaluation:
    """Every scene of the ground truth with its prediction, where there is one."""
    chosen = {key: scene for key, scene in truth.scenes.items() if keys is None or key in keys}
    if predicted and not predicted.keys() & truth.scenes.keys():
        raise InputError(
            f"predictions: none of the {len(predicted)} scenes, such as {next(iter(predicted))!r}, "
            "is in the ground truth. Check that both are of the same test set."
        )
    pairs = tuple(ScenePair(key, predicted.get(key), scene) for key, scene in chosen.items())
    unknown = len(predicted.keys() - truth.scenes.keys())
    notes = _count(unknown, "predicted scenes are not in the ground truth")
    notes += _count(len(truth.scenes) - len(chosen), "ground-truth scenes were not asked for")
    return Evaluation(truth.schema, rule, pairs, notes)


def _pair_with_folder(
    predictions_file: Path | str, root: Path, schema: Schema, method: str
) -> Evaluation:
    layout = schema.scene_folder
    if layout is None or method != "kyvo":
        raise InputError(
            f"ground truth: {root}: dataset {schema.name!r} with method {method!r} needs the "
            "Omni3D JSON file, not a folder. Name it with --groundtruth_file."
        )
    rule, pairs, paths = schema.rule, [], set()
    predicted = read_predicted_scenes(predictions_file, schema)
    for key, scene in tqdm(predicted.items(), desc="scenes", unit="scene", disable=None):
        path = root / layout.path_of(key, f"predictions: {predictions_file}")
        paths.add(path)
        pairs.append(ScenePair(key, scene, _read_true_scene(path, schema)))
    notes = _count(len(layout.paths(root) - paths), "ground-truth scenes have no prediction")
    return Evaluation(schema, rule, tuple(pairs), notes)


def _count(number: int, what: str) -> tuple[str, ...]:
    return (f"{number} {what}: not scored",) if number else ()


def _rows(root: Any, place: str) -> list[tuple[str, list[Any], str]]:
    """Key, objects and place of every row of a run's file of scenes."""
    rows = []
    seen = set()
    for index, scene in enumerate(take(root, "scenes", list, place)):
        where = f"{place}: scenes[{index}]"
        key = take(scene, "key", str, where)
        if key in seen:
            raise InputError(f"{where}: key {key!r} is there twice. Make the file again.")
        seen.add(key)
        rows.append((key, take(scene, "objects", list, where), where))
    if not rows:
        raise InputError(f"{place}: no scenes to score. Check the generation's log.")
    return rows


def _scene(objects: list[Any], place: str, read: Callable[[Any, str], SceneObject]) -> Scene:
    """The objects of a JSON list, each as ``read`` takes it at its place."""
    return Scene(tuple(read(item, f"{place}: objects[{i}]") for i, item in enumerate(objects)))


def _read_true_scene(path: Path, schema: Schema) -> Scene:
    place = f"ground truth: {path}"
    objects = take(read_json(path, "ground truth"), "objects", list, place)
    return _scene(objects, place, lambda item, where: _true_object(item, schema, where))


def _true_object(value: Any, schema: Schema, place: str) -> SceneObject:
    """An object of the ground truth, which the rule must be able to read."""
    item = schema.read(expect(value, dict, place))
    if not is_scorable(item, schema.rule):
        expected = schema.rule.describe()
        raise InputError(f"{place}: expected {expected}; found {value!r:.160}. Check the file.")
    return item


def _own_truth(root: Any, place: str, schema: Schema) -> _TruthFile:
    """The ground truth that a run wrote beside its predictions."""

    def read(item: Any, where: str) -> SceneObject:
        return _true_object(item, schema, where)

    rows = _rows(root, place)
    return _TruthFile(schema, {key: _scene(objects, where, read) for key, objects, where in rows})


_CATEGORY, _NUMBERS = "category", ("center_cam", "dimensions")


def _omni3d(root: Any, place: str, schema: Schema) -> _TruthFile:
    """The ground truth of an Omni3D file, by ``schema`` if it has such fields."""
    if not {fld.key for fld in schema.fields} >= {_CATEGORY, *_NUMBERS}:
        schema = OMNI3D
    file_paths = _id_table(root, "images", "file_path", place)
    truth = _TruthFile(schema, {}, file_paths, _id_table(root, "categories", "name", place))
    objects: dict[str, list[SceneObject]] = {name: [] for name in file_paths.values()}
    for index, item in enumerate(take(root, "annotations", list, place)):
        where = f"{place}: annotations[{index}]"
        image, found = _detection(item, truth, where)
        objects[image].append(_true_object(found, schema, where))
    truth.scenes.update({image: Scene(tuple(items)) for image, items in objects.items()})
    return truth


def _read_detections(path: Path | str, truth: _TruthFile) -> Scenes:
    """Read a COCO-style list of detections, as Cube R-CNN writes it."""
    place = f"predictions: {path}"
    result: dict[str, list[SceneObject]] = {}
    for index, item in enumerate(expect(read_json(path, "predictions"), list, place)):
        image, found = _detection(item, truth, f"{place}: [{index}]")
        result.setdefault(image, []).append(truth.schema.read(found))
    return {image: Scene(tuple(items)) for image, items in result.items()}


METHODS: Mapping[str, Callable[[Path | str, _TruthFile], Scenes]] = {
    "kyvo": lambda path, truth: read_predicted_scenes(path, truth.schema),
    "cube-rcnn": _read_detections,
}
"""Who may have written predictions, and how they are read."""


def _detection(item: Any, truth: _TruthFile, place: str) -> tuple[str, dict[str, object]]:
    """The image of a COCO-style annotation, and the entries of the object in it."""
    image = take(item, "image_id", int, place)
    category = take(item, "category_id", int, place)
    tables = (("image", image, truth.file_paths), ("category", category, truth.categories))
    for name, number, table in tables:
        if number not in table:
            raise InputError(
                f"{place}: {name}_id {number} is not in the ground truth's table. "
                "Check that both files are of the same test set."
            )
    numbers = {key: item.get(key) for key in _NUMBERS}
    return truth.file_paths[image], {_CATEGORY: truth.categories[category], **numbers}


def _id_table(root: Any, name: str, value: str, place: str) -> dict[int, str]:
    """The ids of a COCO-style table, each with one of its entry's strings."""
    rows = enumerate(take(root, name, list, place))
    places = ((row, f"{place}: {name}[{index}]") for index, row in rows)
    return {take(row, "id", int, where): take(row, value, str, where) for row, where in places}
