import dataclasses
import json

import pytest

from kyvo.common.errors import InputError
from kyvo.metrics import load_evaluation, parse_taus, score_scenes
from kyvo.metrics.scene_files import find_predictions
from kyvo.scenes import PAPER_TAUS, SCHEMAS

CLEVR, OBJAWORLD, OBJECTRON = SCHEMAS["clevr"], SCHEMAS["objaworld"], SCHEMAS["objectron"]
CUBE = {"size": "large", "color": "red", "material": "metal", "shape": "cube"}


def cube(x=0.0, y=0.0):
    return {**CUBE, "3d_coords": [x, y, 0.7]}


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def write_scenes(folder, scenes):
    """Ground truth and equal predictions for ``{name: objects}``; returns the predictions."""
    for name, objects in scenes.items():
        write(folder / "truth" / f"{name}.json", {"objects": objects})
    rows = [{"key": f"{name}.png", "objects": objects} for name, objects in scenes.items()]
    return write(folder / "run/predicted_scenes_run.json", {"scenes": rows})


def test_identity_scores_one_and_files_hold_each_scene(tmp_path):
    predictions = write_scenes(tmp_path, {"a": [cube(), cube(1.0)], "b": []})
    scores = score_scenes(load_evaluation(predictions, tmp_path / "truth", CLEVR))
    scores.write(tmp_path)
    written = json.loads((tmp_path / "jaccard.json").read_text())
    assert scores.mean == written["jaccard"] == 1
    assert list(written["taus"]) == [str(tau) for tau in PAPER_TAUS]
    assert written["taus"]["0.05"]["scenes"]["a.png"]["true_positives"] == 2
    assert (tmp_path / "jaccard_index_tau-0.2.txt").read_text() == "Jaccard Index: 1.0000\n"


def test_mean_over_taus_is_the_mean_of_each(tmp_path):
    predictions = write_scenes(tmp_path, {"a": [cube(0.12)]})
    write(tmp_path / "truth/a.json", {"objects": [cube(), cube(2.0)]})
    scores = score_scenes(load_evaluation(predictions, tmp_path / "truth", CLEVR))
    assert [tau.jaccard for tau in scores.taus] == [0, 0, 0.5, 0.5, 0.5]
    assert scores.mean == pytest.approx(0.3)


def test_true_scenes_without_prediction_are_reported(tmp_path):
    predictions = write_scenes(tmp_path, {"a": [cube()]})
    write(tmp_path / "truth/b.json", {"objects": []})
    scores = score_scenes(load_evaluation(predictions, tmp_path / "truth", CLEVR))
    assert "1 ground-truth scenes have no prediction: not scored" in scores.summary()


def test_objaworld_layout(tmp_path):
    truth = {"shape": "park bench-07", "3d_coords": [1.0, 2.0, 0.3], "rotation": 0.5}
    write(tmp_path / "truth/output-park-large-10K-6/scenes/s_1.json", {"objects": [truth]})
    found = {"shape": "park bench", "3d_coords": [1.0, 2.0, 0.3, 0.5]}
    rows = {"scenes": [{"key": "s_1.png_park", "objects": [found]}]}
    predictions = write(tmp_path / "p.json", rows)
    evaluation = load_evaluation(predictions, tmp_path / "truth", OBJAWORLD)
    assert score_scenes(evaluation).mean == 1


def omni3d(num_images):
    images = [{"id": i, "file_path": f"{i}.jpg"} for i in range(num_images)]
    annotations = [
        {"image_id": i, "category_id": 7, "center_cam": [0, 0, 1], "dimensions": [1, 1, 1]}
        for i in range(num_images)
    ]
    categories = [{"id": 7, "name": "cereal box"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def test_an_image_without_prediction_is_missed_and_the_reference_is_printed(tmp_path):
    truth = write(tmp_path / "gt.json", omni3d(4))
    found = {"category": "cereal box", "center_cam": [0, 0, 1], "dimensions": [1, 1, 1]}
    rows = [{"key": f"{i}.jpg", "objects": [found]} for i in (0, 1, 99)]
    predictions = write(tmp_path / "p.json", {"scenes": rows})
    scores = score_scenes(load_evaluation(predictions, truth, OBJAWORLD), [0.05])
    assert scores.taus[0].jaccard == 0.5
    assert scores.taus[0].predicted_jaccard == 1
    summary = scores.summary()
    assert "1 predicted scenes are not in the ground truth" in summary
    assert "2 scenes have no prediction" in summary
    assert "as the released code counts: 1.0000" in summary


def test_parse_taus():
    assert parse_taus(["0.10", "paper"]) == (0.10, 0.05, 0.15, 0.20, 0.25)
    for value in ("0", "-1", "nan", "inf", "much"):
        with pytest.raises(InputError, match="--tau"):
            parse_taus([value])


def test_a_run_folder_holds_exactly_one_predictions_file(tmp_path):
    with pytest.raises(InputError, match="found none"):
        find_predictions(tmp_path)
    write(tmp_path / "predicted_scenes_a.json", {})
    assert find_predictions(tmp_path).name == "predicted_scenes_a.json"
    write(tmp_path / "predicted_scenes_b.json", {})
    with pytest.raises(InputError, match=r"predicted_scenes_a\.json, predicted_scenes_b\.json"):
        find_predictions(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"scenes": [', "not valid JSON"),
        ("", "not valid JSON"),
        ("[]", "expected an object"),
        ("{}", "no entry 'scenes'"),
        ('{"scenes": 3}', "scenes: expected a list"),
        ('{"scenes": []}', "no scenes"),
        ('{"scenes": [3]}', r"scenes\[0\]: expected an object"),
        ('{"scenes": [{"objects": []}]}', r"scenes\[0\]: no entry 'key'"),
        ('{"scenes": [{"key": "a.png"}]}', r"scenes\[0\]: no entry 'objects'"),
        ('{"scenes": [{"key": "a.png", "objects": [1]}]}', r"scenes\[0\]: objects\[0\]"),
        ('{"scenes": [{"key": "../a.png", "objects": []}]}', "not of the form"),
        ('{"scenes": [{"key": "z.png", "objects": []}]}', r"z\.json: no such file"),
        (
            '{"scenes": [{"key": "a.png", "objects": []}, {"key": "a.png", "objects": []}]}',
            r"scenes\[1\]: key 'a.png' is there twice",
        ),
    ],
)
def test_broken_predictions_are_refused(tmp_path, content, message):
    write(tmp_path / "truth/a.json", {"objects": []})
    path = write(tmp_path / "p.json", content)
    with pytest.raises(InputError, match=message):
        load_evaluation(path, tmp_path / "truth", CLEVR)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"objects": [{"size": "large"}]}', r"objects\[0\]: expected size, color"),
        ('{"objects": [7]}', r"objects\[0\]: expected an object"),
        ('{"object": []}', "no entry 'objects'"),
        ('{"objects": [', "not valid JSON"),
    ],
)
def test_broken_ground_truth_is_refused(tmp_path, content, message):
    predictions = write_scenes(tmp_path, {"a": [cube()]})
    path = write(tmp_path / "truth/a.json", content)
    with pytest.raises(InputError, match=message) as caught:
        load_evaluation(predictions, tmp_path / "truth", CLEVR)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"annotations": [{"image_id": 9, "category_id": 7}]}, "image_id 9 is not"),
        ({"annotations": [{"image_id": 0, "category_id": 8}]}, "category_id 8 is not"),
        ({"annotations": [{"image_id": 0, "category_id": 7}]}, "expected category, center_cam"),
        ({"images": [{"id": 0}]}, r"images\[0\]: no entry 'file_path'"),
        ({"categories": None}, "categories: expected a list"),
    ],
)
def test_broken_omni3d_is_refused(tmp_path, damage, message):
    truth = write(tmp_path / "gt.json", {**omni3d(1), **damage})
    detections = write(tmp_path / "p.json", omni3d(1)["annotations"])
    with pytest.raises(InputError, match=message):
        load_evaluation(detections, truth, CLEVR, method="cube-rcnn")


def test_nothing_in_common_is_refused(tmp_path):
    truth = write(tmp_path / "gt.json", omni3d(2))
    predictions = write(tmp_path / "p.json", {"scenes": [{"key": "x.jpg", "objects": []}]})
    with pytest.raises(InputError, match="none of the 1 scenes"):
        load_evaluation(predictions, truth, OBJAWORLD)


def test_a_detector_that_found_nothing_scores_nothing(tmp_path):
    truth, detections = write(tmp_path / "gt.json", omni3d(2)), write(tmp_path / "p.json", [])
    scores = score_scenes(load_evaluation(detections, truth, OBJAWORLD, method="cube-rcnn"))
    assert len(scores.evaluation.pairs) == 2
    assert [tau.jaccard for tau in scores.taus] == [0.0] * len(scores.taus)
    scores.write(tmp_path)
    assert "0.0000" in scores.summary()


def test_detections_need_the_omni3d_file(tmp_path):
    detections = write(tmp_path / "p.json", [])
    with pytest.raises(InputError, match="--groundtruth_file"):
        load_evaluation(detections, tmp_path, CLEVR, method="cube-rcnn")


def test_a_runs_own_truth_scores_what_has_no_scene_files(tmp_path):
    truth = {"a.png": [cube(), cube(1.0)], "b.png": [cube()]}
    rows = [{"key": key, "objects": objects} for key, objects in truth.items()]
    groundtruth = write(tmp_path / "groundtruth_scenes_run.json", {"scenes": rows})
    predictions = write(tmp_path / "predicted_scenes_run.json", {"scenes": rows[:1]})
    scores = score_scenes(load_evaluation(predictions, groundtruth, CLEVR))
    assert scores.mean == 0.5
    assert "1 scenes have no prediction" in scores.summary()

    box = {"category": "cup", "center_cam": [0.0, 0.0, 1.0], "dimensions": [0.1, 0.1, 0.1]}
    far = {**box, "dimensions": [0.3, 0.3, 0.3]}
    write(groundtruth, {"scenes": [{"key": "a.jpg", "objects": [box]}]})
    write(predictions, {"scenes": [{"key": "a.jpg", "objects": [far]}]})
    for dimension_tau, expected in ((0.05, 0), (0.25, 1)):
        evaluation = load_evaluation(
            predictions, groundtruth, OBJECTRON, dimension_tau=dimension_tau
        )
        assert score_scenes(evaluation).mean == expected

    write(groundtruth, {"scenes": [{"key": "a.jpg", "objects": [{"category": "cup"}]}]})
    with pytest.raises(InputError, match=r"run.json: scenes\[0\]: objects\[0\]: expected category"):
        load_evaluation(predictions, groundtruth, OBJECTRON)


@pytest.mark.parametrize("method", ["kyvo", "cube-rcnn"])
def test_of_a_part_of_the_images_the_rest_is_not_missing(tmp_path, method):
    root = omni3d(4)
    truth = write(tmp_path / "gt.json", root)
    names = [image["file_path"] for image in root["images"]]
    if method == "kyvo":
        fields = ("center_cam", "dimensions")
        rows = [
            {"key": name, "objects": [{"category": "cereal box", **{f: item[f] for f in fields}}]}
            for name, item in zip(names, root["annotations"], strict=True)
        ]
        predictions = write(tmp_path / "p.json", {"scenes": rows[:2]})
    else:
        predictions = write(tmp_path / "p.json", root["annotations"][:2])
    whole = load_evaluation(predictions, truth, OBJECTRON, method)
    part = load_evaluation(predictions, truth, OBJECTRON, method, keys=set(names[:3]))
    assert score_scenes(whole).mean == 0.5
    assert score_scenes(part).mean == pytest.approx(2 / 3)
    assert part.notes == ("1 ground-truth scenes were not asked for: not scored",)


def test_an_own_schema_with_omni3ds_fields_is_scored_by_its_own_rule(tmp_path):
    """Rooms, say, whose objects are farther apart; other schemas give way to Omni3D's."""
    truth = write(tmp_path / "gt.json", omni3d(1))
    found = {"category": "cereal box", "center_cam": [0, 1.5, 1], "dimensions": [1, 1.5, 1]}
    predictions = write(tmp_path / "p.json", {"scenes": [{"key": "0.jpg", "objects": [found]}]})
    wide = OBJECTRON.rule.with_dimension_tau(1.0)
    own = dataclasses.replace(
        OBJECTRON, name="own", matching=dataclasses.replace(wide, taus=(1.25, 1.75))
    )
    evaluation = load_evaluation(predictions, truth, own)
    assert evaluation.schema.name == "own"
    assert [scores.jaccard for scores in score_scenes(evaluation).taus] == [0, 1]
    assert load_evaluation(predictions, truth, CLEVR).rule == OBJECTRON.rule
    narrow = load_evaluation(predictions, truth, own, dimension_tau=0.1)
    assert score_scenes(narrow).mean == 0
