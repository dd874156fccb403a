"""The overview of a world: every item with its own image and words, counts that are true."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from kyvo_stand_ins import load_script, refusal_of
from PIL import Image

from kyvo.common.files import read_json
from kyvo.report import world_sheets
from kyvo.report.world_sheets import read_items
from kyvo.world import SceneOptions
from kyvo.world.writer import WorldOptions, write_world

SCENES = SceneOptions(min_objects=3, max_objects=5, height=24, width=24)
COMMAND = load_script("show_world")


@pytest.fixture(scope="module", params=["scenes", "instructions", "questions"])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / str(request.param)
    options = WorldOptions(SCENES, samples_per_pixel=1, seed=1, task=str(request.param))
    write_world(folder, {"test": 6}, options)
    return folder


def test_items_hold_what_belongs_together(world: Path) -> None:
    items = list(read_items(world / "test"))
    assert len(items) == 6
    for item in items:
        stems = {path.stem for path in item.images}
        (stem,) = stems
        for image, scene in zip(item.images, item.scenes, strict=True):
            file = read_json(image.parents[1] / "scenes" / f"{stem}.json", "scene")
            assert [o.position for o in scene.objects] == [
                tuple(o["3d_coords"]) for o in file["objects"]
            ]
        if world.name == "scenes":
            assert item.caption == f"{len(item.scenes[0].objects)} objects"
        else:
            said = read_json(world / "test" / world.name / f"{stem}.json", "text")
            assert said[world.name[:-1]] in item.caption


def test_the_sheet_shows_the_images(world: Path, tmp_path: Path) -> None:
    sheet, plots = tmp_path / "s.png", tmp_path / "p.png"
    command = ["--world", str(world), "--count", "4", "--sheet", str(sheet), "--plots", str(plots)]
    COMMAND.main(command)
    image = np.asarray(Image.open(sheet).convert("RGB"))
    # Anti-aliasing apart, the middle pixels of each image are on the sheet.
    seen = {tuple(colour) for colour in image.reshape(-1, 3)}
    for item in list(read_items(world / "test"))[:4]:
        pixels = np.asarray(Image.open(item.images[0]).convert("RGB"))[4:-4, 4:-4]
        found = [tuple(colour) in seen for colour in pixels.reshape(-1, 3)]
        assert np.mean(found) > 0.9
    assert np.asarray(Image.open(plots)).std() > 5


def test_the_plots_count_every_object(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: dict[str, Counter[str]] = {}
    monkeypatch.setattr(
        world_sheets, "_bars", lambda name, counts: drawn.update({name: counts}) or (lambda _: None)
    )
    world_sheets.write_distributions(world / "test", tmp_path / "p.png")
    scenes = [read_json(path, "scene") for path in world.glob("test/**/scenes/*.json")]
    colors = Counter(item["color"] for scene in scenes for item in scene["objects"])
    assert drawn["color"] == colors
    assert drawn["objects in a scene"] == Counter(len(scene["objects"]) for scene in scenes)
    name = {"instructions": "kind", "questions": "answer"}.get(world.name)
    assert name is None or drawn[name].total() == 6


def test_bad_input_is_reported(
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for flags, complaint in (
        ([], "nothing to draw"),
        (["--sheet", "a.jpg"], "ends in .png"),
        (["--sheet", "a.png", "--split", "none"], "none"),
    ):
        message = refusal_of(COMMAND.main, ["--world", str(world), *flags], monkeypatch, capsys)
        assert complaint in message
