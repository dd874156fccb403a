"""DATA.md's six steps to own scenes: its commands, in order, at tiny size."""

import importlib.util
import json
import re
import shlex
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from kyvo.common.errors import InputError
from kyvo.common.files import read_json
from kyvo.evaluation.table import Row, check_rows
from kyvo.metrics import load_evaluation
from kyvo.scenes import get_schema
from kyvo.tokens.sequences import get_task

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "docs/own-scenes"
SECTION = (ROOT / "DATA.md").read_text().split("\n## Your own scenes in six steps\n")[1]
COMMANDS = re.findall(r"^python3 (\S+\.py) (.+)$", SECTION.split("\n## ")[0], flags=re.MULTILINE)
# What makes a command tiny.
OVERRIDES = {
    "train_vqgan.py": "max_steps=20 model.ch=16 batch_size=4 codebook.start_images=12",
    "full_finetune_single_device_3d.py": "max_steps=4 batch_size=4 log_every_n_steps=2",
    "generate_3d.py": "batch_size=4 num_samples=2",
    "evaluate.py": "batch_size=4 num_samples=2",
}


def module_of(script: str) -> ModuleType:
    path = ROOT / script
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def arguments_of(script: str, text: str) -> list[str]:
    arguments = shlex.split(text.replace("train:5000 test:100", "train:12 test:4"))
    return arguments + OVERRIDES.get(Path(script).name, "").split()


@pytest.mark.slow
def test_the_documented_commands_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(COMMANDS) == 13
    for name in ("configs", "docs", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    printed = []
    for script, text in COMMANDS:
        module_of(script).main(arguments_of(script, text))
        printed.append(capsys.readouterr().out)
    assert [text.endswith("no problems\n") for text in printed].count(True) == 2
    assert "Jaccard Index" in "".join(printed)
    results = tmp_path / "own-scenes/results"
    predicted = read_json(
        results / "three_d_json/recognition/predicted_scenes_recognition.json", "predictions"
    )
    ships = [ship for scene in predicted["scenes"] for ship in scene["objects"]]
    keys = {"type", "flag_color", "position", "heading", "length"}
    assert len(predicted["scenes"]) == 2
    assert all(set(ship) <= keys for ship in ships)
    assert len(list((results / "decoded/GENERATED").glob("*.png"))) == 2
    check_evaluation(tmp_path / "own-scenes/evaluation")
    report = (tmp_path / "own-scenes/report.html").read_text()
    assert "An object is found if type, flag_color are right" in report
    # Each plot has its caption twice: below it, and for those who cannot see it.
    assert report.count("both from above") == 2 * 2


def check_evaluation(folder: Path) -> None:
    """Both tasks are in the table, the scenes by the schema's rule and at its taus."""
    recognition, rendering = read_json(folder / "evaluation.json", "evaluation")["rows"]
    (run,) = recognition["runs"]["here"]
    assert run["num_samples"] == 2
    assert {"jaccard", "jaccard@0.5", "jaccard@1"} <= run["values"].keys()
    assert rendering["values"]["here"]["ssim"] is not None
    assert "| recognition | harbour | Jaccard" in (folder / "evaluation.md").read_text()


def test_a_schema_without_a_rule_is_refused_before_anything_is_generated(
    tmp_path: Path,
) -> None:
    """Then the generation is not paid for."""
    text = (EXAMPLE / "schema.yaml").read_text()
    (tmp_path / "schema.yaml").write_text(text[: text.index("# When a predicted")])
    schema = get_schema(str(tmp_path / "schema.yaml"))
    assert schema.position_field is not None
    assert schema.position_field.key == "position"
    with pytest.raises(InputError, match=r"schema\.yaml' has no matching rule"):
        load_evaluation(tmp_path / "none.json", tmp_path, schema)
    codec = SimpleNamespace(schema=schema)
    reader = SimpleNamespace(task=get_task("I-3"), codec=codec)
    plan = SimpleNamespace(config=SimpleNamespace(data_root=tmp_path), reader=reader)
    with pytest.raises(InputError, match=r"schema\.yaml' has no matching rule"):
        check_rows([Row("recognition", "harbour", (Path("a.yaml"),))], [plan])  # type: ignore[list-item]


def test_kept_scenes_are_those_of_the_generator(tmp_path: Path) -> None:
    arguments = ["--output", str(tmp_path), "--splits", "train:3", "test:1"]
    module_of("docs/own-scenes/make_harbour.py").main(arguments)
    kept = sorted((EXAMPLE / "world").rglob("*.json"))
    assert len(kept) == 4
    for path in kept:
        made = tmp_path / path.relative_to(EXAMPLE / "world")
        assert json.loads(made.read_text()) == json.loads(path.read_text())


@pytest.mark.parametrize(
    ("heading", "ahead"), [(0, (0, -1)), (90, (1, 0)), (180, (0, 1)), (270, (-1, 0))]
)
def test_bows_point_where_the_heading_says(heading: int, ahead: tuple[int, int]) -> None:
    """Pixels run to the right and down; the bow of 200 m is 100 m ahead of the middle."""
    ship = {"type": "tanker", "position": [5.0, 5.0], "heading": [heading], "length": [200]}
    bow = module_of("docs/own-scenes/make_harbour.py").outline(ship)[2]
    assert np.allclose(np.array(bow) - 32, np.array(ahead) * 100 * 64 / 1000)


def test_images_are_small_and_of_one_size() -> None:
    images = sorted((EXAMPLE / "world").rglob("*.png"))
    assert len(images) == 4
    for path in images:
        assert path.stat().st_size < 600
        with Image.open(path) as image:
            assert image.size == (64, 64)
