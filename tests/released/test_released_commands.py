"""The released README's commands, word for word, on tiny stand-ins of the released data.

Only sizes are overridden. Each data set's commands run in the README's order, in one folder.
"""

import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from kyvo_stand_ins import load_script
from PIL import Image
from released_tree import LLAMA, SIZES, SPLITS, VQGANS, ReleasedTree, read, write_llama

from kyvo.images.checkpoint import load_vqgan
from kyvo.images.preprocessing import to_uint8
from kyvo.models import latest_checkpoint
from kyvo.tokens.vocabulary import get_vocabulary

ROOT = Path(__file__).parents[2]
GOLDENS = ROOT / "tests/goldens/metrics"
EXPECTED = read(GOLDENS / "expected.json")
LINES = (Path(__file__).parent / "commands.txt").read_text().splitlines()
COMMANDS = [line for line in LINES if not line.startswith("#")]
METRIC_COMMANDS = [line for line in COMMANDS if "/compute_" in line or "/decode_" in line]
MODEL = [f"model.{name}={size}" for name, size in SIZES.items()]
SMALL = {
    "full_finetune_single_device_3d": [
        *MODEL,
        "epochs=1",
        "batch_size=2",
        "precision=fp32",
        "device=cpu",
        "lr_scheduler.num_warmup_steps=1",
        "loss.head_chunk=128",
    ],
    # The grammar, so that a model of two training steps writes whole images.
    "generate_3d": [*MODEL, "precision=fp32", "device=cpu", "constrained=true"],
    "decode_image_embeddings": ["--device", "cpu"],
}
TESTED = SPLITS["test"]


def commands(*words: str) -> list[str]:
    """The README's commands that have all of ``words`` in them, at least one."""
    found = [line for line in COMMANDS if all(word in line for word in words)]
    assert found
    return found


def flags_of(line: str) -> dict[str, str]:
    """The flags of a metric command and their values."""
    words = shlex.split(line)[2:]
    return dict(zip(words[::2], words[1::2], strict=True))


def run(line: str, *more: str) -> None:
    """Run a command line as the shell would split it, in this process."""
    interpreter, script, *arguments = shlex.split(line)
    assert interpreter == "python3"
    name = Path(script).stem
    load_script(name).main([*arguments, *SMALL.get(name, []), *more])


def workplace(folder: Path, dataset: str) -> Path:
    """A checkout with the downloads that the README asks for, moved as it says."""
    for name in ("configs", "scripts", "kyvo"):
        (folder / name).symlink_to(ROOT / name)
    llama = folder / "llama-3-models" / LLAMA
    write_llama(llama)
    ReleasedTree(folder, dataset, llama / "original/tokenizer.model").write()
    (move,) = commands("mv ", LLAMA)
    subprocess.run(["bash", "-c", move], cwd=folder, check=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["clevr", "objaworld", "objectron"])
def test_commands_of(dataset, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(workplace(tmp_path, dataset))
    for line in commands("full_finetune", f"/{dataset}/"):
        run(line)
        check_training(Path("checkpoints", dataset, Path(line).stem.replace("_", "-")), dataset)
    for line in commands("generate_3d", f"/{dataset}/"):
        run(line)
        check_generation(line, dataset)
    for line in METRIC_COMMANDS:
        if f"/{dataset}/" in line:
            capsys.readouterr()
            run(line)
            check_metric(line, capsys.readouterr().out)


def check_training(output, dataset):
    """A whole checkpoint, and the released layout with the released shapes."""
    found, skipped = latest_checkpoint(output)
    assert found is not None
    assert skipped == []
    assert found.step == SPLITS["train"] / 2
    exported = torch.load(output / "meta_model_0.pt", weights_only=True)
    vocabulary = get_vocabulary(dataset)
    width, numbers = SIZES["embed_dim"], vocabulary.number_rows.size
    expected = {
        "tok_embeddings.token_embedding.weight": (128256, width),
        "tok_embeddings.numbers_embedding.weight": (numbers, width),
        "tok_embeddings.static_sin_cos_embedding.weight": (numbers, width),
        "tok_embeddings.added_embedding.weight": (vocabulary.added_rows.size, width),
        "tok_embeddings.vqgan_codebook.weight": (1024, 256),
        "tok_embeddings.vqgan_embed_proj.weight": (width, 256),
        "output.weight": (vocabulary.size, width),
        "layers.1.attention.wq.weight": (width, width),
        "layers.1.feed_forward.w2.weight": (width, SIZES["intermediate_dim"]),
    }
    assert {name: tuple(exported[name].shape) for name in expected} == expected
    codebook = np.load(dataset_file("vqgan-models-and-codebooks", dataset, VQGANS[dataset][1]))
    assert np.array_equal(exported["tok_embeddings.vqgan_codebook.weight"], codebook)


def dataset_file(part, dataset, *names):
    return Path("kyvo-datasets-and-codebooks", part, dataset, *names)


def check_generation(line, dataset):
    """The result files of the run, by name and content."""
    task = "instruction-following" if "instruction" in line else Path(line).stem
    name = f"{task}-{Path(line).stem}" if "instruction" in line else task
    run_id = f"{dataset}_{name}_inference"
    output = Path("checkpoints", dataset, f"{task}-inference")
    three_d, images = output / "three_d_json" / run_id, output / "image_embeddings" / run_id
    kinds = {"question-answering": "answers"}.get(task, "scenes")
    written = {path.name for path in three_d.glob("*.json")}
    if task != "rendering":
        assert {f"{kind}_{kinds}_{run_id}.json" for kind in ("predicted", "groundtruth")} <= written
        rows = read(three_d / f"predicted_{kinds}_{run_id}.json")[kinds]
        truth = read(three_d / f"groundtruth_{kinds}_{run_id}.json")[kinds]
        assert [row["key"] for row in rows] == [row["key"] for row in truth]
        assert [row["image_filename"] for row in rows] == [
            f"predicted_scene_{i}" for i in range(TESTED)
        ]
    assert f"original_scenes_{run_id}.json" in written
    assert "parse_report.json" in written
    if task in ("rendering", "instruction-following"):
        check_images(images, run_id, dataset)


def check_images(folder, run_id, dataset):
    codebook = np.load(dataset_file("vqgan-models-and-codebooks", dataset, VQGANS[dataset][1]))
    for kind in ("generated", "ground_truth"):
        paths = sorted(folder.glob(f"{kind}_image_tokens_{run_id}_*.npy"))
        assert len(paths) == TESTED
        for path in paths:
            vectors = np.load(path)
            assert vectors.dtype == np.float32
            assert vectors.shape == (256, 16, 16)
            rows = vectors.reshape(256, 256).T
            assert (rows[:, None] == codebook).all(-1).any(-1).all()


def check_metric(line, printed):
    """Every metric command prints its value and writes it where the README expects it."""
    flags, script = flags_of(line), Path(shlex.split(line)[1]).stem
    if script == "compute_jaccard_index":
        predictions = flags.get("--predictions_file")
        folder = Path(predictions).parent if predictions else Path(flags["--generated_folder"])
        text = (folder / "jaccard_index_tau-0.05.txt").read_text()
        assert text.startswith("Jaccard Index: 0.")
        assert text.strip() in printed
        per_scene = read(folder / "jaccard.json")["taus"]["0.05"]["scenes"]
        assert len(per_scene) == TESTED
    elif script == "decode_image_embeddings":
        check_decoded(Path(flags["--folder_path"]), Path(flags["--image_output_path"]))
    elif script == "compute_ssim_l2loss":
        text = (Path(flags["--output_folder"]) / "ssim_l2.txt").read_text()
        assert text.strip() in printed
        assert len(read(Path(flags["--output_folder"]) / "ssim_l2.json")["images"]) == TESTED
    else:
        assert "Accuracy: " in printed


def check_decoded(embeddings, output):
    """Each image is the VQGAN's decoding of the vectors in its file."""
    dataset = embeddings.name.split("_")[0]
    model = load_vqgan(dataset_file("vqgan-models-and-codebooks", dataset, VQGANS[dataset][0]))
    for kind, folder in (("generated", "GENERATED"), ("ground_truth", "GROUNDTRUTH")):
        written = list((output / folder).glob(f"{kind}_*.png"))
        assert len(written) == TESTED
        for path in sorted(embeddings.glob(f"{kind}_*.npy"))[:1]:
            with torch.inference_mode():
                image_1CHW = model.decode_embeddings(torch.from_numpy(np.load(path))[None])
            expected = to_uint8(image_1CHW)[0].int().numpy()
            found = [np.asarray(Image.open(path)).astype(int) for path in written]
            assert min(np.abs(image - expected).max() for image in found) <= 1


def put(source, target):
    """Copy a golden file or folder to where a command expects it."""
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    copy = shutil.copytree if (GOLDENS / source).is_dir() else shutil.copy
    copy(GOLDENS / source, target)


@pytest.mark.parametrize("line", commands("jaccard"))
def test_jaccard_indices_are_the_references(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = flags_of(line)
    dataset, method = flags["--dataset"], flags.get("--method")
    if method:
        source = {"kyvo": "kyvo.json", "cube-rcnn": "cube.json"}[method]
        put(f"objectron/{source}", flags["--predictions_file"])
        put("objectron/gt.json", flags["--groundtruth_file"])
        expected = EXPECTED["objectron"][method]["0.05"][0]
        folder = Path(flags["--predictions_file"]).parent
    else:
        folder = Path(flags["--generated_folder"])
        name = {"clevr": "run_x", "objaworld": "run_y"}[dataset]
        put(
            f"{dataset}/{name}/predicted_scenes_{name}.json",
            folder / f"predicted_scenes_{folder.name}.json",
        )
        put(f"{dataset}/gt", flags["--groundtruth_folder"])
        expected = EXPECTED[dataset]["0.05"]
    run(line)
    text = (folder / "jaccard_index_tau-0.05.txt").read_text()
    assert text == f"Jaccard Index: {expected:.4f}\n"


def test_ssim_and_l2_are_the_references(tmp_path, monkeypatch):
    (line,) = commands("ssim")
    monkeypatch.chdir(tmp_path)
    flags = flags_of(line)
    put("images/GENERATED", flags["--generated_folder"])
    put("images/gt", flags["--groundtruth_folder"])
    run(line)
    written = read(Path(flags["--output_folder"]) / "ssim_l2.json")
    values = {name: written[name] for name in ("ssim", "l2")}
    assert values == pytest.approx(EXPECTED["images"], rel=1e-9, abs=0)


def test_accuracy_is_the_references(tmp_path, monkeypatch, capsys):
    (line,) = commands("accuracy")
    monkeypatch.chdir(tmp_path)
    flags = flags_of(line)
    put("qa/pred.json", flags["--predicted_file"])
    put("qa/gt.json", flags["--groundtruth_file"])
    run(line)
    assert f"Accuracy: {EXPECTED['qa']['accuracy_percent']}%" in capsys.readouterr().out


def test_the_readme_links_the_page_that_has_the_commands():
    assert "](docs/reproduce.md)" in (ROOT / "README.md").read_text()
    lines = (ROOT / "docs/reproduce.md").read_text().splitlines()
    assert [line for line in COMMANDS if line not in lines] == []
