"""Reading predicted and ground-truth scenes, in the layouts that each dataset comes in."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from kyvo.common.errors import InputError
from kyvo.common.files import read_json
from kyvo.metrics.fields import expect, take
from kyvo.metrics.matching import RULES, MatchingRule, SceneObject, rule_of


@dataclass(frozen=True)
class ScenePair:
    """One scene to score; ``predicted`` is None where the model gave no prediction at all."""

    key: str
    predicted: Sequence[SceneObject] | None
    groundtruth: Sequence[SceneObject]


@dataclass(frozen=True)
class Evaluation:
    """Everything a score is computed from.

    Attributes:
        dataset: name of the rule.
        rule: when two objects count as the same.
        pairs: the scenes to score.
        notes: what was left out of ``pairs`` and why, one line each.
    """

    dataset: str
    rule: MatchingRule
    pairs: tuple[ScenePair, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SceneFolder:
    """Ground truth as one JSON file per scene.

    Attributes:
        key: pattern of a scene's key; its named groups fill ``path``.
        key_form: what such a key looks like, for messages.
        path: where the scene's file lies inside the folder.
        read_object: turns a ground-truth object into the form of a predicted one.
    """

    key: re.Pattern[str]
    key_form: str
    path: str
    read_object: Callable[[dict[str, Any]], SceneObject]

    def path_of(self, key: str, place: str = "predictions") -> Path:
        """Path of a scene's file inside the folder.

        Raises:
            InputError: the key has another form; ``place`` says where it stands.
        """
        match = self.key.fullmatch(key)
        if match is None:
            raise InputError(
                f"{place}: scene key {key[:120]!r} is not of the form {self.key_form}. "
                "Check --dataset, or the 'key' entries of the predictions."
            )
        return Path(self.path.format(**match.groupdict()))

    def paths(self, root: Path) -> set[Path]:
        """Every scene file in the folder, whatever its key."""
        return set(root.glob(self.path.format(**dict.fromkeys(self.key.groupindex, "*"))))


def _objaworld_object(item: dict[str, Any]) -> SceneObject:
    """Drop the asset's number from the shape's name and append the yaw to the position."""
    shape, position = item.get("shape"), item.get("3d_coords")
    if not isinstance(shape, str) or not isinstance(position, list):
        return item
    return {"shape": shape.split("-")[0], "3d_coords": [*position[:3], item.get("rotation")]}


ENVIRONMENT_FOLDER = "output-{environment}-large-10K-6"
"""The released ObjaWorld's folder of an environment's true scenes and pictures."""

SCENE_FOLDERS: Mapping[str, SceneFolder] = {
    "clevr": SceneFolder(
        key=re.compile(r"(?P<name>[^/\\]+?)(\.png)?"),
        key_form="NAME.png",
        path="{name}.json",
        read_object=dict,
    ),
    "objaworld": SceneFolder(
        key=re.compile(r"(?P<name>[^/\\]+)\.png_(?P<environment>[^/\\]+)"),
        key_form="NAME.png_ENVIRONMENT",
        path=ENVIRONMENT_FOLDER + "/scenes/{name}.json",
        read_object=_objaworld_object,
    ),
}
DATASETS = tuple(RULES)


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
    dataset: str = "clevr",
    method: str = "kyvo",
    dimension_tau: float = 0.05,
    keys: Collection[str] | None = None,
) -> Evaluation:
    """Read predictions and ground truth and pair them by key.

    Args:
        predictions_file: a run's predictions, or a detector's (``METHODS``).
        groundtruth: a folder of scene files laid out as ``dataset``'s; or one Omni3D JSON file,
            which is always matched by Objectron's rule; or a run's own ``groundtruth_scenes_*``.
        dimension_tau: bound on the mean error of an object's dimensions (Objectron).
        keys: score only these scenes of a ground truth that is a file; None: all of them.

    Raises:
        InputError: a file is missing or malformed, or nothing can be paired.
    """
    if Path(groundtruth).is_dir():
        return _pair_with_folder(predictions_file, Path(groundtruth), dataset, method)
    place = f"ground truth: {groundtruth}"
    root = expect(read_json(groundtruth, "ground truth"), dict, place)
    is_own = "scenes" in root
    rule_name = dataset if is_own else "objectron"
    rule = rule_of(rule_name, dimension_tau)
    if is_own:
        truth = _TruthFile({k: _checked(s, rule, place) for k, s in _scenes(root, place).items()})
    else:
        truth = _read_omni3d(root, place)
    predicted = METHODS[method](predictions_file, truth)
    return _pair(predicted, truth.objects, rule_name, rule, keys)


def _pair(
    predicted: Mapping[str, Sequence[SceneObject]],
    truth: Mapping[str, Sequence[SceneObject]],
    dataset: str,
    rule: MatchingRule,
    keys: Collection[str] | None,
) -> Evaluation:
    """Every scene of the ground truth with its prediction, where there is one."""
    wanted = {key: truth[key] for key in truth if keys is None or key in keys}
    if not predicted.keys() & truth.keys():
        raise InputError(
            f"predictions: none of the {len(predicted)} scenes, such as {next(iter(predicted))!r}, "
            "is in the ground truth. Check that both are of the same test set."
        )
    pairs = tuple(ScenePair(key, predicted.get(key), objects) for key, objects in wanted.items())
    unknown = len(predicted.keys() - truth.keys())
    notes = _count(unknown, "predicted scenes are not in the ground truth")
    notes += _count(len(truth) - len(wanted), "ground-truth scenes were not asked for")
    return Evaluation(dataset, rule, pairs, notes)


def _checked(objects: Sequence[SceneObject], rule: MatchingRule, place: str) -> list[SceneObject]:
    return [_check(item, rule, place) for item in objects]


def _pair_with_folder(
    predictions_file: Path | str, root: Path, dataset: str, method: str
) -> Evaluation:
    if dataset not in SCENE_FOLDERS or method != "kyvo":
        raise InputError(
            f"ground truth: {root}: dataset {dataset!r} with method {method!r} needs the Omni3D "
            "JSON file, not a folder. Name it with --groundtruth_file."
        )
    layout, rule = SCENE_FOLDERS[dataset], RULES[dataset]
    pairs = []
    paths = set()
    predicted = read_predicted_scenes(predictions_file)
    for key, objects in tqdm(predicted.items(), desc="scenes", unit="scene", disable=None):
        path = root / layout.path_of(key, f"predictions: {predictions_file}")
        paths.add(path)
        pairs.append(ScenePair(key, objects, _read_scene(path, layout, rule)))
    notes = _count(len(layout.paths(root) - paths), "ground-truth scenes have no prediction")
    return Evaluation(dataset, rule, tuple(pairs), notes)


def _count(number: int, what: str) -> tuple[str, ...]:
    return (f"{number} {what}: not scored",) if number else ()


def read_predicted_scenes(path: Path | str) -> dict[str, list[SceneObject]]:
    """Read ``{"scenes": [{"key": ..., "objects": [...]}]}`` as ``{key: objects}``.

    Raises:
        InputError: the file is missing or malformed, is empty or names a scene twice.
    """
    return _scenes(read_json(path, "predictions"), f"predictions: {path}")


def _scenes(root: Any, place: str) -> dict[str, list[SceneObject]]:
    """Objects by key of a run's file of scenes."""
    result: dict[str, list[SceneObject]] = {}
    for index, scene in enumerate(take(root, "scenes", list, place)):
        where = f"{place}: scenes[{index}]"
        key = take(scene, "key", str, where)
        if key in result:
            raise InputError(f"{where}: key {key!r} stands there twice. Make the file again.")
        objects = take(scene, "objects", list, where)
        result[key] = [
            expect(item, dict, f"{where}: objects[{i}]") for i, item in enumerate(objects)
        ]
    if not result:
        raise InputError(f"{place}: no scenes to score. Check the generation's log.")
    return result


def _read_scene(path: Path, layout: SceneFolder, rule: MatchingRule) -> list[SceneObject]:
    purpose = "ground truth"
    objects = take(read_json(path, purpose), "objects", list, f"{purpose}: {path}")
    places = [f"{purpose}: {path}: objects[{index}]" for index in range(len(objects))]
    return [
        _check(layout.read_object(expect(item, dict, place)), rule, place)
        for item, place in zip(objects, places, strict=True)
    ]


@dataclass(frozen=True)
class _TruthFile:
    """Ground truth of one file: objects per image, and the names behind Omni3D's ids."""

    objects: Mapping[str, list[SceneObject]]
    file_paths: Mapping[int, str] = field(default_factory=dict)
    categories: Mapping[int, str] = field(default_factory=dict)


def _read_omni3d(root: dict[str, Any], purpose: str) -> _TruthFile:
    file_paths = _id_table(root, "images", "file_path", purpose)
    categories = _id_table(root, "categories", "name", purpose)
    annotations = take(root, "annotations", list, purpose)
    objects: dict[str, list[SceneObject]] = {name: [] for name in file_paths.values()}
    for index, item in enumerate(annotations):
        place = f"{purpose}: annotations[{index}]"
        image, found = _detection(item, file_paths, categories, place)
        objects[image].append(_check(found, RULES["objectron"], place))
    return _TruthFile(objects, file_paths, categories)


def _read_detections(path: Path | str, truth: _TruthFile) -> dict[str, list[SceneObject]]:
    """Read a COCO-style list of detections, as Cube R-CNN writes it."""
    purpose = f"predictions: {path}"
    result: dict[str, list[SceneObject]] = {}
    for index, item in enumerate(expect(read_json(path, "predictions"), list, purpose)):
        place = f"{purpose}: [{index}]"
        image, found = _detection(item, truth.file_paths, truth.categories, place)
        result.setdefault(image, []).append(found)
    return result


METHODS: Mapping[str, Callable[[Path | str, _TruthFile], dict[str, list[SceneObject]]]] = {
    "kyvo": lambda path, _: read_predicted_scenes(path),
    "cube-rcnn": _read_detections,
}


def _detection(
    item: Any, file_paths: Mapping[int, str], categories: Mapping[int, str], place: str
) -> tuple[str, SceneObject]:
    """The image of a COCO-style annotation, and the object in it."""
    image = take(item, "image_id", int, place)
    category = take(item, "category_id", int, place)
    for name, number, table in (("image", image, file_paths), ("category", category, categories)):
        if number not in table:
            raise InputError(
                f"{place}: {name}_id {number} is not in the ground truth's table. "
                "Check that both files are of the same test set."
            )
    found = {name: item.get(name) for name in ("center_cam", "dimensions")}
    return file_paths[image], {"category": categories[category], **found}


def _id_table(root: Any, name: str, value: str, place: str) -> dict[int, str]:
    """The ids of a COCO-style table, each with one of its entry's strings."""
    rows = enumerate(take(root, name, list, place))
    places = ((row, f"{place}: {name}[{index}]") for index, row in rows)
    return {take(row, "id", int, where): take(row, value, str, where) for row, where in places}


def _check(item: SceneObject, rule: MatchingRule, place: str) -> SceneObject:
    """Return a ground-truth object that the rule can read, else raise InputError."""
    if rule.read(item) is None:
        fields = ", ".join([*rule.words, *(f"{field} ({n} numbers)" for field, n in rule.numbers)])
        raise InputError(f"{place}: expected {fields}; found {dict(item)!r:.160}. Check the file.")
    return item
