"""What the tests of models, training, decoding and recipes share: tiny models and tiny data."""

import importlib.util
import json
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import kyvo.common.cli
from kyvo.decoding import Engine, GenerationSettings
from kyvo.decoding.grammar import Automaton
from kyvo.models import KyvoModel, kyvo_model
from kyvo.scenes import SceneCodec, get_schema
from kyvo.tokens.text_tokenizer import load_text_tokenizer
from kyvo.tokens.vocabulary import TEXT_END, TEXT_START, Vocabulary, get_vocabulary

# Models this small are many times slower when several threads share their work.
torch.set_num_threads(1)

GOLDENS = Path(__file__).parent / "goldens" / "model"
CODES_PER_IMAGE = 16
COLORS = ("gray", "red", "blue", "green")
TINY_SIZES = {
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "embed_dim": 32,
    "intermediate_dim": 64,
    "codebook_dim": 16,
    "max_seq_len": 256,
}
MINI_CODEBOOK = np.random.default_rng(0).standard_normal((512, 16)).astype(np.float32)


def golden(name: str) -> Any:
    return json.loads((GOLDENS / name).read_text())


def det_tensor(name: str, shape: tuple[int, ...], scale: float | None = None) -> Tensor:
    """Weights that depend on name and shape only: how the goldens were made."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    values = random.standard_normal(shape).astype(np.float32)
    if len(shape) == 1:
        is_norm = "norm" in name and name.endswith(("weight", "scale"))
        return torch.from_numpy(is_norm + np.float32(0.1) * values)
    return torch.from_numpy(values * (scale or 1.0 / np.sqrt(shape[-1])))


@cache
def golden_model(variant: str = "sin_cos_plus_learned") -> KyvoModel:
    """The tiny model that the goldens were made with, float32."""
    choice: dict[str, Any] = {"number_embedding": variant}
    if variant == "mlp_projector":
        choice = {"image_projection": "mlp"}
    model = kyvo_model(
        vocabulary=get_vocabulary("clevr"),
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        embed_dim=32,
        intermediate_dim=64,
        **choice,
    )
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    weights = {n: det_tensor(n, s) for n, s in shapes.items() if "static" not in n}
    weights["tok_embeddings.vqgan_codebook.weight"] = det_tensor("codebook", (1024, 256), 1.0)
    model.load_state_dict(weights, strict=False)
    return model.eval()


def tiny_model(seed: int = 0, **choices: Any) -> KyvoModel:
    """A model of the mini vocabulary whose random weights are large enough to have opinions."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {**TINY_SIZES, "initial_std": 0.3, **choices}
    model = kyvo_model(vocabulary=get_vocabulary("mini"), **sizes)
    model.tok_embeddings.set_codebook(torch.from_numpy(MINI_CODEBOOK))
    return model.eval()


def make_engine(
    model: KyvoModel, prompts: Sequence[np.ndarray], batch_size: int, **settings: Any
) -> Engine:
    """An engine that is as large as the prompts need."""
    chosen = GenerationSettings(**settings)
    longest = max(map(len, prompts), default=0)
    return Engine(
        model, chosen, min(batch_size, len(prompts)) or 1, longest + chosen.max_new_tokens
    )


def generate(
    model: KyvoModel,
    prompts: Sequence[np.ndarray],
    eos: int,
    max_new_tokens: int,
    batch_size: int = 32,
    indices: Sequence[int] | None = None,
    **settings: Any,
) -> dict[int, list[int]]:
    """Generated ids by the prompt's position."""
    settings |= {"eos": eos, "max_new_tokens": max_new_tokens}
    engine = make_engine(model, prompts, batch_size, **settings)
    return {place: found.ids.tolist() for place, found in engine.generate(prompts, indices)}


@torch.inference_mode()
def uncached_values(
    model: Callable[[torch.Tensor], torch.Tensor],
    prompt: np.ndarray,
    ids: Sequence[int],
    vocabulary: Vocabulary,
    automaton: Automaton | None = None,
) -> list[float]:
    """Of each id the mean of its number and the four possible ones on each side; NaN for no number.

    Asks the whole model for every id, and adds up in float64.
    """
    values, state, numbers = [], 0, vocabulary.number
    for place, token in enumerate(ids):
        possible = list(range(numbers.start, numbers.stop))
        if automaton is not None:
            next_C = automaton.next_state[state]
            possible = [i for i in possible if next_C[automaton.class_of_id[i]] >= 0]
            state = next_C[automaton.class_of_id[token]]
        values.append(np.nan)
        if token in numbers:
            at = possible.index(token)
            near = possible[max(0, at - 4) : at + 5]
            sequence = torch.tensor([[*prompt.tolist(), *ids[:place]]])
            weights = model(sequence)[0, -1, near].double().numpy()
            weights = np.exp(weights - weights.max())
            strings = [vocabulary.numbers[i - numbers.start] for i in near]
            values[-1] = weights @ np.array(strings, dtype=float) / weights.sum()
    return values


def tiny_model_yaml(**choices: Any) -> str:
    """The ``model`` section of a config for ``tiny_model``."""
    lines = [f"  {key}: {value}\n" for key, value in {**TINY_SIZES, **choices}.items()]
    return "model:\n  _component_: kyvo.models.kyvo_model\n" + "".join(lines)


def mini_codec() -> SceneCodec:
    vocabulary = get_vocabulary("mini")
    return SceneCodec(get_schema("clevr"), vocabulary, load_text_tokenizer(None, vocabulary))


def load_script(name: str) -> ModuleType:
    """The command ``scripts/name.py`` as a module."""
    path = Path(__file__).parents[1] / "scripts" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def refusal_of(
    main: Callable[[Sequence[str]], None],
    arguments: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    """What the command prints as it exits with status 1."""
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_status:
        kyvo.common.cli.run(main)
    assert exit_status.value.code == 1
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    return message


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def stand_in_scene(random: np.random.Generator, num_objects: int) -> list[dict[str, Any]]:
    return [
        {
            "size": str(random.choice(["large", "small"])),
            "color": str(random.choice(COLORS)),
            "material": "rubber",
            "shape": str(random.choice(["cube", "sphere"])),
            "3d_coords": (random.integers(-20, 20, 3) / 20).tolist(),
        }
        for _ in range(num_objects)
    ]


def write_data(folder: Path, num_samples: int = 12) -> dict[str, str]:
    """Pretokenised files of every kind, samples of different lengths; paths by source name.

    The colour of the first object decides the picture, so that there is something to learn.
    """
    random, codec = np.random.default_rng(1), mini_codec()
    keys = [f"sample_{i:03d}.png" for i in range(num_samples)]
    files: dict[str, dict[str, Any]] = {}
    for side in ("source", "target"):
        scenes = {key: stand_in_scene(random, 1 + i % 3) for i, key in enumerate(keys)}
        write_json(folder / f"objects_{side}.json", scenes)
        typed = {key: codec.schema.parse_scene(scene, key) for key, scene in scenes.items()}
        files[f"three_d_{side}"] = {
            key: {"token_ids": codec.encode(scene), "string": codec.string(scene)}
            for key, scene in typed.items()
        }
        files[f"image_{side}"] = {
            key: [100 * COLORS.index(scene[0]["color"]) + i for i in range(CODES_PER_IMAGE)]
            for key, scene in scenes.items()
        }
    files["text_source"] = {key: _text(codec, "how many red things") for key in keys}
    files["text_target"] = {key: _text(codec, str(i % 3)) for i, key in enumerate(keys)}
    return {name: str(write_json(folder / f"{name}.json", x)) for name, x in files.items()}


def _text(codec: SceneCodec, text: str) -> dict[str, Any]:
    start, end = (codec.vocabulary.marker_id(marker) for marker in (TEXT_START, TEXT_END))
    ids = [start, *codec.tokenizer.encode(f" {text}"), end]
    return {"token_ids": ids, "string": f"{TEXT_START} {text}{TEXT_END}"}


def sources(paths: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: paths[name] for name in names}
