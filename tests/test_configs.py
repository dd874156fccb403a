"""Every yaml of configs/ fits its class; the full-size ones are the paper's, under its names."""

import re
from functools import cache
from pathlib import Path

import pytest

from kyvo.common.config import load_config
from kyvo.common.errors import InputError
from kyvo.decoding import GenerationConfig
from kyvo.evaluation.table import load_table
from kyvo.training import TrainingConfig
from kyvo.training.vqgan import VQGANTrainingConfig

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
KINDS = {
    "mini/train.yaml": TrainingConfig,
    "mini/eval/re*.yaml": GenerationConfig,
    "mini/vqgan.yaml": VQGANTrainingConfig,
    "vqgan/*.yaml": VQGANTrainingConfig,
    "mid/vqgan.yaml": VQGANTrainingConfig,
    "mid/train/[!b]*.yaml": TrainingConfig,
    "mid/eval/[!bi]*.yaml": GenerationConfig,
    "mid/eval/instruction-following/*.yaml": GenerationConfig,
    "llama3_2/train/*/*.yaml": TrainingConfig,
    "llama3_2/eval/*/**/*.yaml": GenerationConfig,
}
"""What a config is, by its place; new ones need no line here."""
RUNS = {
    str(path.relative_to(CONFIGS)): kind
    for pattern, kind in KINDS.items()
    for path in CONFIGS.glob(pattern)
}
TABLES = {"mini/evaluation.yaml", "mid/evaluation.yaml", "llama3_2/evaluation.yaml"}
PARTS = {
    "mini/model.yaml",
    "mini/eval/base.yaml",
    "mid/model.yaml",
    "mid/vocabulary.yaml",
    "mid/train/base.yaml",
    "mid/eval/base.yaml",
    "mid/eval/instruction-following.yaml",
    "mini/quickstart.yaml",
    "llama3_2/base.yaml",
    "llama3_2/train/base.yaml",
    "llama3_2/eval/base.yaml",
    "llama3_2/eval/instruction-following.yaml",
    "llama3_2/datasets/clevr.yaml",
    "llama3_2/datasets/objaworld.yaml",
    "llama3_2/datasets/objectron.yaml",
}
UNCOMMENTED = {"mini/quickstart.yaml", *TABLES}
TRAINING = {
    "clevr/rendering": "3-I",
    "clevr/recognition": "I-3",
    "clevr/instruction_following": "I+3+T-I+3",
    "clevr/question_answering": "I+3+Q-A",
    "objaworld/rendering": "3-I",
    "objaworld/recognition": "I-3",
    "objectron/recognition": "I-3",
}
SUBTASKS = (
    "appearance-no-relation",
    "appearance-with-relation",
    "insertion-with-relation",
    "moving-with-relation",
    "removal-with-relation",
)
GENERATION = {
    "clevr/rendering": ("3-I", "clevr/rendering"),
    "clevr/recognition": ("I-3", "clevr/recognition"),
    "clevr/question-answering": ("I+3+Q-A", "clevr/question_answering"),
    "objaworld/rendering": ("3-I", "objaworld/rendering"),
    "objaworld/recognition": ("I-3", "objaworld/recognition"),
    "objectron/recognition": ("I-3", "objectron/recognition"),
    **{
        f"clevr/instruction-following/{name}": ("I+3+T-I+3", "clevr/instruction_following")
        for name in SUBTASKS
    },
}


@cache
def full_size(kind: str, name: str) -> TrainingConfig | GenerationConfig:
    cls = {"train": TrainingConfig, "eval": GenerationConfig}[kind]
    return load_config(cls, CONFIGS / "llama3_2" / kind / f"{name}.yaml")


@pytest.mark.parametrize("name", RUNS)
def test_configs_load(name: str) -> None:
    assert isinstance(load_config(RUNS[name], CONFIGS / name), RUNS[name])


def test_configs_are_found_where_released_commands_name_them() -> None:
    for path in CONFIGS.rglob("*.yaml"):
        assert (ROOT / "kyvo/configs" / path.relative_to(CONFIGS)).samefile(path)


def test_the_released_configs_are_there() -> None:
    found = {str(path.relative_to(CONFIGS)) for path in CONFIGS.glob("**/*.yaml")}
    assert found >= RUNS.keys() | PARTS | TABLES
    for kind, names in (("train", TRAINING), ("eval", GENERATION)):
        folder = CONFIGS / "llama3_2" / kind
        runs = {str(p.relative_to(folder).with_suffix("")) for p in folder.glob("*/**/*.yaml")}
        assert runs >= names.keys()


@pytest.mark.parametrize("name", sorted((RUNS.keys() | PARTS) - UNCOMMENTED))
def test_every_key_is_commented(name: str) -> None:
    """On its line, or by the comment that heads its group of lines."""
    uncommented, is_covered = [], False
    for line in (CONFIGS / name).read_text().splitlines():
        text = line.strip()
        is_covered = text.startswith("#") or (is_covered and bool(text))
        is_header = text.endswith(":") or text.startswith(("_component_:", "base:"))
        if text and not (is_covered or is_header or "#" in text):
            uncommented.append(text)
    assert uncommented == []


@pytest.mark.parametrize(("name", "task"), TRAINING.items())
def test_training_is_the_papers(name: str, task: str) -> None:
    config = full_size("train", name)
    dataset, task_name = name.split("/")
    assert isinstance(config, TrainingConfig)
    assert config.optimizer.arguments["lr"] == 1e-4
    assert config.lr_scheduler is not None
    assert config.lr_scheduler.path.endswith("cosine_schedule_with_warmup")
    assert config.epochs == 10
    assert config.batch_size * config.gradient_accumulation_steps == (16 if "T" in task else 32)
    assert config.model.path == "kyvo.models.llama3_2_1b"
    assert config.model.arguments["train_text_embedding"] is False
    weighting = (config.loss.weight_first_positions, config.loss.weight)
    assert weighting == ((5, 10.0) if "I" in task.split("-")[1] else (0, 1.0))
    assert config.dataset.arguments["task"] == task
    assert config.vocabulary == config.scene_schema == dataset
    assert str(config.output_dir) == f"checkpoints/{dataset}/{task_name.replace('_', '-')}"


@pytest.mark.parametrize(("name", "task", "trained"), [(n, *v) for n, v in GENERATION.items()])
def test_generation_reads_what_training_wrote(name: str, task: str, trained: str) -> None:
    config, training = full_size("eval", name), full_size("train", trained)
    assert isinstance(config, GenerationConfig)
    assert config.checkpoint == training.output_dir
    for key in ("model", "vocabulary", "codebook", "scene_schema", "tokenizer"):
        assert getattr(config, key) == getattr(training, key)
    assert config.dataset.arguments["task"] == task
    assert config.sampling.temperature == 0
    assert config.num_samples is None
    files = {
        str(v) for k, v in config.dataset.arguments.items() if k.endswith(("source", "target"))
    }
    seen = {
        str(v) for k, v in training.dataset.arguments.items() if k.endswith(("source", "target"))
    }
    assert len(files) == len(seen)
    assert all(re.search("/test_", file) for file in files)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_tables_name_configs_that_exist(name: str) -> None:
    rows = load_table(CONFIGS / name)
    folder = CONFIGS / Path(name).parent
    named = {str(path.relative_to(folder)) for row in rows for path in row.configs}
    runs = {
        str((CONFIGS / run).relative_to(folder))
        for run, kind in RUNS.items()
        if kind is GenerationConfig and (CONFIGS / run).is_relative_to(folder)
    }
    released = {f"eval/{run}.yaml" for run in GENERATION} if folder.name == "llama3_2" else set()
    assert released <= named <= runs


@pytest.mark.parametrize(
    ("kind", "name"), [("train", "clevr/recognition"), ("eval", "clevr/recognition")]
)
def test_a_bad_vocabulary_does_not_hide_a_bad_schema(kind: str, name: str) -> None:
    cls = {"train": TrainingConfig, "eval": GenerationConfig}[kind]
    path = CONFIGS / "llama3_2" / kind / f"{name}.yaml"
    with pytest.raises(
        InputError, match=r"(?s)2 problems:.*no vocabulary 'a'.*no scene schema 'b'"
    ):
        load_config(cls, path, ["vocabulary=a", "scene_schema=b"])
