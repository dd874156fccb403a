"""Checks of own data: every planted problem is reported with its place, and nothing else is."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kyvo_stand_ins import load_script
from PIL import Image
from scene_samples import encode

from kyvo.common.errors import InputError
from kyvo.prepare.layout import ReleasedLayout
from kyvo.prepare.validation import Findings, check_codec, check_tokens, check_world
from kyvo.scenes import SceneCodec, get_schema
from kyvo.tokens.text_tokenizer import load_text_tokenizer
from kyvo.tokens.vocabulary import get_vocabulary

EXAMPLE = Path(__file__).parents[2] / "docs/own-scenes"
SCHEMA, VOCABULARY = str(EXAMPLE / "schema.yaml"), str(EXAMPLE / "vocabulary.yaml")
FIRST, SECOND, THIRD = (f"harbour_train_{i:04d}" for i in range(3))


def codec(schema: str = SCHEMA, vocabulary: str = VOCABULARY) -> SceneCodec:
    ids = get_vocabulary(vocabulary)
    return SceneCodec(get_schema(schema), ids, load_text_tokenizer(None, ids))


CODEC = codec()


@pytest.fixture
def world(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLE / "world", tmp_path / "world"))


def problems_of(world: Path) -> list[str]:
    """The problems of the train split, with paths inside the world."""
    findings = Findings()
    check_world(world, ["train"], CODEC, findings)
    assert findings.count == len(findings.messages)
    return [message.replace(f"{world}/train/", "") for message in findings.messages]


def change_scene(world: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    path = world / "train/scenes" / f"{name}.json"
    scene = json.loads(path.read_text())
    change(scene)
    path.write_text(json.dumps(scene))


def test_the_summary_counts_what_the_files_hold(world: Path) -> None:
    texts = world / "train/texts/questions.json"
    texts.parent.mkdir()
    texts.write_text(json.dumps({f"{FIRST}.png": "How many ships are there?"}))
    findings = Findings()
    lines = check_world(world, ["train", "test"], CODEC, findings)
    assert findings.messages == []
    scenes = [json.loads(p.read_text())["objects"] for p in (world / "train/scenes").iterdir()]
    ships = [ship for scene in scenes for ship in scene]
    types, sizes = Counter(s["type"] for s in ships), Counter(map(len, scenes))
    lengths = [s["length"][0] for s in ships]
    errors = [abs(length - CODEC.schema.fields[-1].axes[0].snap(length)) for length in lengths]  # type: ignore[union-attr]
    assert lines[0] == "train: 3 images, 3 scenes"
    per_scene = ", ".join(f"{size} x {sizes[size]}" for size in sorted(sizes))
    assert f"  objects per scene: {per_scene}" in lines
    assert (
        f"  type: {', '.join(f'{t} x {types[t]}' for t in ('ferry', 'tanker', 'yacht'))}" in lines
    )
    assert (
        f"  length overall: {min(lengths)} .. {max(lengths)} metres, snapping moves by "
        f"{sum(errors) / len(errors):.3g} on average, {max(errors):.3g} at most"
    ) in lines
    longest = max(len(encode(CODEC, scene)) for scene in scenes)
    assert f"  longest scene: {longest} tokens" in lines
    assert "  questions: texts of 1 of 3 images" in lines
    assert lines[-1] == "images of 64 x 64 pixels"


def test_angles_that_wrap_move_by_little(world: Path) -> None:
    for name in (FIRST, SECOND, THIRD):
        change_scene(world, name, lambda scene: [s.update(heading=[358]) for s in scene["objects"]])
    lines = check_world(world, ["train"], CODEC, Findings())
    expected = "heading angle: 358 .. 358 degrees from north, snapping moves by 2 on average"
    assert any(expected in line for line in lines)


def test_images_and_scenes_without_each_other(world: Path) -> None:
    (world / f"train/images/{FIRST}.png").unlink()
    (world / f"train/scenes/{SECOND}.json").unlink()
    (world / "train/images/photo.JPG").write_bytes(b"")
    (world / "train/images/.DS_Store").write_bytes(b"")
    assert problems_of(world) == [
        "images/photo.JPG: expected only files NAME.png there. Convert or remove it.",
        f"scenes/{FIRST}.json: no images/{FIRST}.png. Add what is missing, or remove the rest.",
        f"images/{SECOND}.png: no scenes/{SECOND}.json. Add what is missing, or remove the rest.",
    ]


def test_missing_and_empty_folders(world: Path) -> None:
    shutil.rmtree(world / "train/images")
    (world / "train/images").mkdir()
    shutil.rmtree(world / "train/scenes")
    found = problems_of(world)
    assert found == [
        "images: no files NAME.png there.",
        "scenes: no such folder. Expected files NAME.json there.",
    ]


def test_images_damaged_or_of_another_size(world: Path) -> None:
    images = world / "train/images"
    data = (images / f"{FIRST}.png").read_bytes()
    (images / f"{FIRST}.png").write_bytes(data[: len(data) // 2])
    for index in range(5, 8):
        name = f"harbour_train_{index:04d}"
        shutil.copyfile(images / f"{THIRD}.png", images / f"{name}.png")
        shutil.copyfile(world / f"train/scenes/{SECOND}.json", world / f"train/scenes/{name}.json")
        change_scene(world, name, lambda scene: scene.pop("image_filename"))
    Image.new("RGB", (32, 48)).save(images / f"{SECOND}.png")
    first, second = problems_of(world)
    assert first.startswith(f"image: images/{FIRST}.png: not readable")
    assert second.startswith(f"images/{SECOND}.png: 32 x 48 pixels, most have 64 x 64")


def test_scenes_that_do_not_fit_the_schema(world: Path) -> None:
    bad = {"type": "raft", "flag_color": 3, "position": [12, "x"], "length": [250.5]}
    change_scene(world, FIRST, lambda scene: scene.update(objects=[bad, "ship"]))
    change_scene(world, SECOND, lambda scene: scene.update(image_filename="other.png"))
    (world / f"train/scenes/{THIRD}.json").write_text('{"objects": 3}')
    place = f"scenes/{FIRST}.json: objects[0]: "
    assert problems_of(world) == [
        f"{place}'heading' is missing",
        f"{place}'type': 'raft', expected one of ferry, tanker, yacht",
        f"{place}'flag_color': 3, expected one of red, green, yellow",
        f"{place}'position': [12, 'x'], expected 2 numbers",
        f"{place}'length': overall = 250.5, expected 40.0 to 200.0 metres",
        f"scenes/{FIRST}.json: objects[1]: expected an object with fields, found 'ship'",
        f"scenes/{SECOND}.json: image_filename is 'other.png', expected '{SECOND}.png'.",
        f"scenes/{THIRD}.json: expected a list 'objects', found 3.",
    ]


@pytest.mark.parametrize("text", ["", "[1, 2", '{"objects": [{"length": [NaN]}]}'])
def test_scenes_that_are_no_json(text: str, world: Path) -> None:
    (world / f"train/scenes/{FIRST}.json").write_text(text)
    (problem,) = problems_of(world)
    assert problem.startswith(f"scene: scenes/{FIRST}.json: line 1: not valid JSON")


@pytest.mark.parametrize("text", ["null", "[]", "3"])
def test_scenes_that_are_no_objects(text: str, world: Path) -> None:
    (world / f"train/scenes/{FIRST}.json").write_text(text)
    (problem,) = problems_of(world)
    assert problem.startswith(f"scene: scenes/{FIRST}.json: expected one object")


def test_texts_of_no_image_or_no_text(world: Path) -> None:
    folder = world / "train/texts"
    folder.mkdir()
    texts = {FIRST: "no suffix", f"{SECOND}.png": " ", f"{THIRD}.png": "good"}
    (folder / "questions.json").write_text(json.dumps(texts))
    (folder / "answers.json").write_text("[]")
    assert problems_of(world) == [
        "texts: texts/answers.json: expected one object {...}, found [].",
        f"texts/questions.json: key '{FIRST}': the split has no image of that name.",
        f"texts/questions.json: key '{SECOND}.png': expected a text, found ' '.",
    ]


def test_beyond_the_limit_problems_are_counted() -> None:
    findings = Findings(limit=2)
    for index in range(5):
        findings.add(f"problem {index}")
    with pytest.raises(InputError) as error:
        findings.raise_any()
    assert str(error.value).splitlines() == [
        "5 problems in the data:", "  - problem 0", "  - problem 1", "  and 3 more",
    ]  # fmt: skip
    Findings().raise_any()


def test_a_vocabulary_that_lacks_what_the_schema_needs(tmp_path: Path) -> None:
    schema, vocabulary = tmp_path / "schema.yaml", tmp_path / "vocabulary.yaml"
    schema.write_text(Path(SCHEMA).read_text().replace("[red, green", "[red, redder, green"))
    text = Path(VOCABULARY).read_text().replace('"[FLAG]", ', "").replace("high: 350", "high: 340")
    vocabulary.write_text(text)
    findings = Findings()
    check_codec(codec(str(schema), str(vocabulary)), findings)
    assert len(findings.messages) == 3
    assert "marker '[FLAG]' is not in the vocabulary" in findings.messages[0]
    assert "the ids of 'red' begin those of 'redder'" in findings.messages[1]
    assert re.search(
        r"\[HEADING\]: 1 of its numbers, such as 350\.0, are not", findings.messages[2]
    )


@pytest.mark.parametrize("name", ["clevr", "objaworld"])
def test_the_presets_fit_together(name: str) -> None:
    findings = Findings()
    check_codec(codec(name, "mini"), findings)
    assert findings.messages == []


def write_tokens(root: Path, **changes: dict[str, Any]) -> ReleasedLayout:
    """Pretokenised files of three scenes; ``changes`` replace entries."""
    layout = ReleasedLayout(root, "harbour", "")
    scenes = {
        path.stem + ".png": {"token_ids": encode(CODEC, json.loads(path.read_text())["objects"])}
        for path in sorted((EXAMPLE / "world/train/scenes").iterdir())
    }
    start, end = (CODEC.vocabulary.marker_id(m) for m in ("[TEXT-START]", "[TEXT-END]"))
    text = {"token_ids": [start, 5, end]}
    files: dict[Path, dict[str, Any]] = {
        layout.image_file("train"): {key: [0, 1, 2, 511] for key in scenes},
        layout.scene_file("train"): scenes,
        layout.text_file("train", "questions"): dict.fromkeys(scenes, text),
    }
    for (path, entries), kind in zip(files.items(), ("images", "scenes", "texts"), strict=True):
        path.parent.mkdir(parents=True)
        merged = {**entries, **changes.get(kind, {})}
        path.write_text(json.dumps({k: v for k, v in merged.items() if v is not None}))
    return layout


def token_problems(layout: ReleasedLayout, codes_per_image: int | None = None) -> list[str]:
    findings = Findings()
    check_tokens(layout, ["train"], CODEC, findings, codes_per_image)
    return [
        m.replace(str(layout.root.resolve()), "").split("harbour/")[1] for m in findings.messages
    ]


def test_texts_of_other_keys_than_the_images(tmp_path: Path) -> None:
    text = {"token_ids": [CODEC.vocabulary.marker_id(m) for m in ("[TEXT-START]", "[TEXT-END]")]}
    layout = write_tokens(tmp_path, texts={"new.png": text, f"{FIRST}.png": None})
    (found,) = token_problems(layout)
    assert found.startswith("text/train_questions.json: key 'new.png' is not in ")


def test_texts_of_a_task_have_every_key(tmp_path: Path) -> None:
    """The answers of a test set lack a question's key; other suffixes do not mind."""
    layout = write_tokens(tmp_path)
    for kind in ("image", "scene"):
        path = getattr(layout, f"{kind}_file")("train")
        path.rename(getattr(replace(layout, suffix="for_vqa"), f"{kind}_file")("train"))
    texts = json.loads(layout.text_file("train", "questions").read_text())
    layout.text_file("train", "vqa_questions").write_text(json.dumps(texts))
    del texts[f"{SECOND}.png"]
    layout.text_file("train", "vqa_answers").write_text(json.dumps(texts))
    (found,) = token_problems(replace(layout, suffix="for_vqa"))
    assert found.startswith(f"images/train_vqgan_indices_for_vqa.json: key '{SECOND}.png' is not")
    write_tokens(tmp_path / "own")
    other = ReleasedLayout(tmp_path / "own", "harbour", "")
    layout.text_file("train", "vqa_answers").rename(other.text_file("train", "vqa_answers"))
    assert token_problems(other) == []


def test_instructions_for_evaluation_are_checked_kind_by_kind(tmp_path: Path) -> None:
    layout = replace(write_tokens(tmp_path), suffix="source")
    base, kind = tmp_path / "pretokenized-data/harbour", "removal_with_relation"
    for folder, old, new in (
        ("images", "train_vqgan_indices", "-source/train_vqgan_indices"),
        ("3d-scenes", "train_tokenized_scenes", "-source/train_tokenized_scenes"),
        ("text", "train_questions", "/train_text_instructions"),
    ):
        target = base / folder / f"instruction-following-eval{new}_{kind}.json"
        target.parent.mkdir()
        (base / folder / f"{old}.json").rename(target)
    findings = Findings()
    lines = check_tokens(layout, ["train"], CODEC, findings)
    assert findings.messages == []
    assert lines[0] == f"train_tokenized_scenes_{kind}.json: 3 scenes"
    assert lines[-1] == f"  train_text_instructions_{kind}.json: 3 texts of up to 3 tokens"
    texts = json.loads(target.read_text())
    del texts[f"{THIRD}.png"]
    target.write_text(json.dumps(texts))
    (found,) = token_problems(layout)
    assert f"key '{THIRD}.png' is not in" in found
    target.unlink()
    (found,) = token_problems(layout)
    assert found.endswith("no such file. Check the path.")


def test_good_tokens_have_a_summary(tmp_path: Path) -> None:
    layout, findings = write_tokens(tmp_path), Findings()
    lines = check_tokens(layout, ["train"], CODEC, findings)
    assert findings.messages == []
    objects = [
        json.loads(p.read_text())["objects"] for p in (EXAMPLE / "world/train/scenes").iterdir()
    ]
    # BOS, the image in its brackets, OUTPUT-START, the scene, EOS.
    longest = max(1 + 6 + 1 + len(encode(CODEC, scene)) + 1 for scene in objects)
    assert lines[0] == "train_tokenized_scenes.json: 3 scenes"
    assert f"  3 samples, the longest {longest} tokens (" in "\n".join(lines)
    assert lines[-1] == "  train_questions.json: 3 texts of up to 3 tokens"


def test_tokens_with_problems(tmp_path: Path) -> None:
    vocabulary = CODEC.vocabulary
    a, b, c = (f"{name}.png" for name in (FIRST, SECOND, THIRD))
    good = encode(CODEC, [{"type": "ferry", "flag_color": "red", "position": [1, 1],
                          "heading": [0], "length": [50]}])  # fmt: skip
    at = good.index(vocabulary.number_id("50.0"))
    far = [*good[:at], vocabulary.number_id("350.0"), *good[at + 1 :]]
    layout = write_tokens(
        tmp_path,
        images={a: [0, 1, 2], b: [0, 512, 2, 700], "new.png": [1, 1, 1, 1]},
        scenes={a: {"token_ids": good[:-1]}, b: {"token_ids": far}, c: None},
        texts={a: {"token_ids": [5]}, b: {"token_ids": [vocabulary.marker_id("[TEXT-START]"),
               vocabulary.eos, vocabulary.marker_id("[TEXT-END]")]}},
    )  # fmt: skip
    images, scenes = "images/train_vqgan_indices.json", "3d-scenes/train_tokenized_scenes.json"
    texts = "text/train_questions.json"
    outside = "'length': overall = 350.0, expected 40.0 to 200.0 metres"
    found = token_problems(layout)
    assert [message.split(" is not in ")[0] for message in found] == [
        f"{images}: key '{a}': 3 codes, expected 4.",
        f"{images}: key '{b}': [1]: code 512, expected 0..511.",
        f"{images}: key '{b}': [3]: code 700, expected 0..511.",
        f"{scenes}: key '{a}': no [SCENE-END]",
        f"{scenes}: key '{b}': objects[0]: {outside}",
        f"{images}: key '{c}'",
        f"{images}: key 'new.png'",
        f"{texts}: key '{a}': expected [TEXT-START], ids of the text, [TEXT-END].",
        f"{texts}: key '{b}': [1]: id {vocabulary.eos} is no text.",
    ]
    assert len(token_problems(layout, codes_per_image=5)) == len(found) + 3


def test_the_command_lists_problems_and_fails(
    world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load_script("validate_data")
    arguments = ["--world", str(world), "--schema", SCHEMA, "--vocabulary", VOCABULARY]
    script.main(arguments)
    assert capsys.readouterr().out.endswith("images of 64 x 64 pixels\nno problems\n")
    for name in (FIRST, SECOND):
        (world / f"train/scenes/{name}.json").unlink()
    with pytest.raises(InputError, match=rf"(?s)2 problems.*{FIRST}\.png: no scene"):
        script.main(arguments)
    with pytest.raises(InputError, match="and 1 more"):
        script.main([*arguments, "--limit", "1"])
    with pytest.raises(SystemExit):
        script.main(["--schema", SCHEMA])
