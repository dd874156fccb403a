"""Tiny stand-ins laid out exactly like what users of the released model have on disk.

    ROOT/llama-3-models/NAME/original/{consolidated.00.pth, tokenizer.model}   as Meta ships them
    ROOT/kyvo-datasets-and-codebooks/...                                       the data set

Vocabularies are the released ones; what is small is the model, the VQGAN and the number of samples.
"""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kyvo_stand_ins import COLORS, stand_in_scene, write_json
from PIL import Image
from torch import Tensor

from kyvo.images.checkpoint import save_vqgan
from kyvo.images.vqgan import VQGAN, VQGANConfig
from kyvo.models import kyvo_model, released_state_dict
from kyvo.scenes import SCHEMAS, SceneCodec, get_schema
from kyvo.tokens.text_tokenizer import load_text_tokenizer
from kyvo.tokens.vocabulary import TEXT_END, TEXT_START, get_vocabulary

DATA = Path("kyvo-datasets-and-codebooks")
LLAMA = "Llama3.2-1B-Instruct"
SIZES = {
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "embed_dim": 32,
    "intermediate_dim": 64,
}
SPLITS = {"train": 4, "test": 3}
SUBTASKS = ("appearance_no_relation", "appearance_with_relation", "insertion_with_relation")
SUBTASKS += ("moving_with_relation", "removal_with_relation")
IMAGE_SIDE = 64
SMALL_VQGAN = VQGANConfig(
    embed_dim=256,
    n_embed=1024,
    z_channels=32,
    resolution=IMAGE_SIDE,
    ch=32,
    ch_mult=(1, 1, 1),
    num_res_blocks=1,
    attn_resolutions=(),
)
VQGANS = {
    "clevr": (
        "2024-10-10T09-21-36_custom_vqgan_CLEVR-LARGE",
        "custom_vqgan_embedding_1024CLEVRLARGE_256dim.npy",
    ),
    "objaworld": (
        "2025-01-17T09-02-22_custom_vqgan_SYNTHETIC_LIVINGROOM_PARK_LARGE_EP100",
        "custom_vqgan_embedding_256SYNTHETIC_LIVINGROOM_PARK_LARGE_EP100_256dim.npy",
    ),
    "objectron": (
        "2024-11-03T05-41-42_custom_vqgan_OMNI3D_OBJECTRON_ep200",
        "custom_vqgan_embedding_256Omni3D-OBJECTRON_256dim.npy",
    ),
}


def write_llama(folder: Path) -> None:
    """Meta's layout, before the README's ``mv``: weights with ``rope.freqs``, tokenizer.model."""
    torch.manual_seed(0)
    model = kyvo_model(vocabulary=get_vocabulary("clevr"), **SIZES)
    body = {k: v for k, v in released_state_dict(model).items() if "tok_embeddings" not in k}
    text = torch.randn(get_vocabulary("clevr").num_text, SIZES["embed_dim"]) * 0.02
    extra = {"tok_embeddings.weight": text, "output.weight": text, "rope.freqs": torch.ones(4)}
    original = folder / "original"
    original.mkdir(parents=True)
    torch.save(
        {k: v.bfloat16() for k, v in (body | extra).items()}, original / "consolidated.00.pth"
    )
    write_tokenizer(original / "tokenizer.model")


def write_tokenizer(path: Path) -> None:
    """Llama's format and size: bytes, the schemas' words, and strings that nothing reaches."""
    words = {
        f" {part}".encode()
        for schema in SCHEMAS.values()
        for field in schema.fields
        for word in getattr(field, "words", ())
        for part in word.split()
    }
    tokens = [bytes([i]) for i in range(256)] + sorted(words)
    tokens += [i.to_bytes(4, "big") for i in range(len(tokens), 128_000)]
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens)]
    path.write_text("".join(lines))


class ReleasedTree:
    """Writes the data set ``name`` under ``root``, with what the tests compare results with."""

    def __init__(self, root: Path, name: str, tokenizer: Path) -> None:
        self.root = root / DATA
        self.name = name
        vocabulary = get_vocabulary(name)
        self.codec = SceneCodec(
            get_schema(name), vocabulary, load_text_tokenizer(tokenizer, vocabulary)
        )
        self.random = np.random.default_rng(0)

    def write(self) -> None:
        """Everything: VQGAN, codebook, pretokenised files of all tasks, evaluation data."""
        self._write_vqgan()
        getattr(self, f"_write_{self.name}")()

    @property
    def evaluation(self) -> Path:
        return self.root / "images-and-scenes-for-evaluation" / self.name

    def _write_clevr(self) -> None:
        for split in SPLITS:
            keys = [f"CLEVR_{split}_{i:06d}.png" for i in range(SPLITS[split])]
            suffix = "_merged_for_rendering_and_recognition"
            scenes = self._pretokenised(split, keys, suffix)
            if split == "test":
                self._originals(scenes)
            for suffix in ("_source", "_target", "_for_vqa"):
                self._pretokenised(split, keys, suffix)
            self._texts(f"{split}_text_instructions", keys, "make it red")
            self._texts(f"{split}_vqa_questions", keys, "how many?")
            self._texts(f"{split}_vqa_answers", keys, "2")
        for subtask in SUBTASKS:
            for side in ("source", "target"):
                folder = f"instruction-following-eval-{side}/"
                self._pretokenised("test", keys, f"_{subtask}", folder)
            name = f"instruction-following-eval/test_text_instructions_{subtask}"
            self._texts(name, keys, "remove the cube")

    def _write_objaworld(self) -> None:
        for split in SPLITS:
            keys = [
                f"scene_{i:04d}.png_{('park', 'livingroom')[i % 2]}" for i in range(SPLITS[split])
            ]
            scenes = self._pretokenised(split, keys, "")
            if split == "test":
                for key, objects in scenes.items():
                    name, environment = key.split(".png_")
                    folder = self.evaluation / f"original_images/output-{environment}-large-10K-6"
                    rows = [
                        {
                            "shape": f"{item['shape']}-05",
                            "3d_coords": item["3d_coords"][:3],
                            "rotation": item["3d_coords"][3],
                        }
                        for item in objects
                    ]
                    write_json(folder / "scenes" / f"{name}.json", {"objects": rows})

    def _write_objectron(self) -> None:
        for split in SPLITS:
            paths = {str(i): f"objectron/{split}/box_{i}.jpg" for i in range(SPLITS[split])}
            strings = {key: {"file_path": path} for key, path in paths.items()}
            scenes = self._pretokenised(split, list(paths), "", strings=strings)
        names = sorted({item["category"] for scene in scenes.values() for item in scene})
        found = [
            {"image_id": int(key), "category_id": names.index(item["category"]), **item}
            for key, scene in scenes.items()
            for item in scene
        ]
        truth = {
            "images": [{"id": int(key), "file_path": path} for key, path in paths.items()],
            "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
            "annotations": found,
        }
        write_json(self.evaluation / "Objectron_test.json", truth)
        # A detector that finds the first object only.
        write_json(self.evaluation / "omni_instance_results_resnet34.json", found[:1])

    def _write_vqgan(self) -> None:
        """A Lightning checkpoint in taming-transformers' layout, and its codebook."""
        run, codebook = VQGANS[self.name]
        folder = self.root / "vqgan-models-and-codebooks" / self.name
        torch.manual_seed(0)
        model = VQGAN(SMALL_VQGAN)
        save_vqgan(model, folder / run, run[:19])
        weights: dict[str, Tensor] = {**model.state_dict(), "loss.logvar": torch.zeros(())}
        checkpoint = {
            "epoch": 9,
            "global_step": 1000,
            "pytorch-lightning_version": "1.0.8",
            "callbacks": {},
            "optimizer_states": [],
            "lr_schedulers": [],
            "state_dict": weights,
        }
        weights_file = folder / run / "checkpoints" / "last.ckpt"
        torch.save(checkpoint, weights_file)
        # The released files have no hash beside them.
        weights_file.with_name("last.ckpt.sha256").unlink()
        np.save(folder / codebook, model.codebook.detach().numpy())

    def _pretokenised(
        self,
        split: str,
        keys: list[str],
        suffix: str,
        folder: str = "",
        strings: dict[str, Any] | None = None,
    ) -> dict[str, list[dict[str, Any]]]:
        """The image and the scene file of one suffix; the objects by key."""
        scenes = {key: list(self._objects(2)) for key in keys}
        codes = {key: self.random.integers(0, 1024, 256).tolist() for key in keys}
        base = self.root / "pretokenized-data" / self.name
        write_json(base / f"images/{folder}{split}_vqgan_indices{suffix}.json", codes)
        typed = {key: self.codec.schema.parse_scene(scene, key) for key, scene in scenes.items()}
        stored = {
            key: {
                "token_ids": self.codec.encode(scene),
                "string": strings[key] if strings else self.codec.string(scene),
            }
            for key, scene in typed.items()
        }
        write_json(base / f"3d-scenes/{folder}{split}_tokenized_scenes{suffix}.json", stored)
        return scenes

    def _objects(self, count: int) -> Iterator[dict[str, Any]]:
        """Random objects of the schema, on its grid."""
        if self.name == "clevr":
            yield from stand_in_scene(self.random, count)
            return
        for _ in range(count):
            item: dict[str, Any] = {}
            for field in self.codec.schema.fields:
                words, axes = getattr(field, "words", ()), getattr(field, "axes", ())
                item[field.key] = (
                    str(self.random.choice(words))
                    if words
                    else [float(self.random.choice(axis.grid)) for axis in axes]
                )
            yield item

    def _originals(self, scenes: dict[str, list[dict[str, Any]]]) -> None:
        """Scene files and images of CLEVR's test set."""
        folder = self.evaluation / "original_images"
        (folder / "images").mkdir(parents=True)
        for key, objects in scenes.items():
            scene = {"image_filename": key, "objects": objects}
            write_json(folder / "scenes" / f"{Path(key).stem}.json", scene)
            shade = 60 * COLORS.index(objects[0]["color"])
            image = self.random.integers(shade, shade + 60, (IMAGE_SIDE, IMAGE_SIDE, 3), np.uint8)
            Image.fromarray(image).save(folder / "images" / key)

    def _texts(self, name: str, keys: list[str], text: str) -> None:
        start, end = (self.codec.vocabulary.marker_id(marker) for marker in (TEXT_START, TEXT_END))
        ids = [start, *self.codec.tokenizer.encode(f" {text}"), end]
        entry = {"token_ids": ids, "string": f"{TEXT_START} {text}{TEXT_END}"}
        path = self.root / "pretokenized-data" / self.name / "text" / f"{name}.json"
        write_json(path, dict.fromkeys(keys, entry))


def read(path: Path) -> Any:
    """A JSON file's content."""
    return json.loads(path.read_text())
