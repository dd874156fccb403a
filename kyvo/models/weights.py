"""Weights in and out: Llama from Meta or Hugging Face, Kyvo in the released layout.

In memory a model has torchtune's parameter names; the released layout has Meta's. Only this
module knows both.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchtune.models.convert_weights import hf_to_tune, meta_to_tune, tune_to_meta

from kyvo.common.errors import InputError
from kyvo.common.files import read_json, require_file
from kyvo.common.weight_files import check_weights, read_state_dict, read_tensor
from kyvo.images.codebook import codebook_hash
from kyvo.models.llama import KyvoModel

LmHeadInit = Literal["llama", "random"]
_EMBEDDING = "tok_embeddings."
# Llama has no name for these: the mixed embedding, the way in of images, norms of queries and keys.
_OWN_NAME = re.compile(r"tok_embeddings\.|image_input\.|layers\.\d+\.attn\.[qk]_norm\.")
_META_FILE = "consolidated.00.pth"
_HF_FILE, _HF_INDEX = "model.safetensors", "model.safetensors.index.json"


def released_state_dict(model: KyvoModel) -> dict[str, Tensor]:
    """The model's weights under the names of the released Kyvo checkpoints."""
    kept, body = _split({k: v.detach() for k, v in model.state_dict().items()})
    return kept | tune_to_meta(body)


def _split(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights that have one name everywhere, and those of Llama's body."""
    kept = {k: v for k, v in state.items() if _OWN_NAME.match(k)}
    return kept, {k: v for k, v in state.items() if k not in kept}


def load_released(model: KyvoModel, path: Path) -> None:
    """Load a trained Kyvo (``meta_model_9.pt`` or the same names in safetensors).

    With a model on the meta device only names and shapes are read and compared.

    Raises:
        InputError: missing, unexpected or mis-shaped weights, all listed; NaN or Inf.
    """
    state = read_state_dict(path, "Kyvo checkpoint", shapes_only=_is_meta(model))
    load_released_state(model, state, str(path))


def load_released_state(model: KyvoModel, state: Mapping[str, Tensor], where: str) -> None:
    """``load_released`` from weights in memory; ``where`` names them in errors."""
    kept, body = _split(state)
    _load(model, kept | _from_meta(body, where), where, required=set(model.state_dict()))


def load_llama(model: KyvoModel, path: Path, lm_head_init: LmHeadInit = "llama") -> None:
    """Start from Llama: body, text embedding and, unless ``lm_head_init`` is random, the head.

    ``path`` is Meta's ``consolidated.00.pth``, a folder holding it (or ``original/``), or a
    folder of Hugging Face safetensors. With "llama" the head's text rows are Llama's tied
    embedding and every new row is their mean, so that a new token starts as likely as an
    average one; with "random" the whole head stays random, as in the reference. With a model on
    the meta device only names and shapes are read and compared.

    Raises:
        InputError: no weights found, or they do not fit the model; all misfits are listed.
    """
    llama, where = _read_llama(path, model)
    text = llama.pop("tok_embeddings.weight", None)
    llama.pop("output.weight", None)
    if text is None:
        raise InputError(f"Llama weights: {where}: no token embedding. Expected Llama's weights.")
    required = {k for k in model.state_dict() if k.startswith(("layers.", "norm."))}
    llama[f"{_EMBEDDING}token_embedding.weight"] = text
    _load(model, llama, where, required)
    if lm_head_init == "llama":
        with torch.no_grad():
            head = model.output.weight
            head[: len(text)] = text.to(head)
            head[len(text) :] = text.float().mean(dim=0).to(head)


def find_llama(path: Path) -> list[Path]:
    """The files of Llama's weights that ``path`` means (see ``load_llama``).

    Raises:
        InputError: there are none, or a shard is missing.
    """
    candidates = [path, path / _META_FILE, path / "original" / _META_FILE]
    meta = [p for p in candidates if p.is_file() and p.suffix == ".pth"]
    files = meta[:1] or _hugging_face_files(path)
    if not files:
        raise InputError(
            f"Llama weights: {path}: found neither {_META_FILE} nor {_HF_FILE}. "
            "Download them with 'tune download meta-llama/Llama-3.2-1B-Instruct' (README)."
        )
    return files


def check_codebook(
    model: KyvoModel,
    codebook: np.ndarray,
    path: Path,
    weights: Path | None = None,
    trained_with: str | None = None,
) -> None:
    """Refuse a codebook (num_codes, C) that is not the model's.

    Args:
        model: the model or its shape on the meta device.
        path: the codebook's file, for the message.
        weights: a trained Kyvo, which holds the codebook that it was trained with.
        trained_with: ``codebook_hash`` of that codebook, where the checkpoint says it.

    Raises:
        InputError: another shape, or other code vectors.
    """
    expected = tuple(model.tok_embeddings.vqgan_codebook.weight.shape)
    if codebook.shape != expected:
        raise InputError(
            f"codebook: {path}: shape {codebook.shape}, expected {expected}. "
            "Set the model's codebook_dim or give the codebook of this vocabulary."
        )
    found = codebook_hash(codebook)
    if trained_with not in (None, found):
        raise InputError(
            f"codebook: {path} has SHA-256 {found}, but {weights} was trained with "
            f"{trained_with}. Give the codebook of the same VQGAN."
        )
    name = f"{_EMBEDDING}vqgan_codebook.weight"
    own = read_tensor(weights, name, "Kyvo checkpoint") if weights is not None else None
    # A model trained in bfloat16 holds a rounded codebook.
    if own is None or own.shape != expected:
        return  # The comparison of names and shapes reports it.
    rounding = 2**-8
    if not np.allclose(own.float().numpy(), codebook, rtol=rounding, atol=0):
        raise InputError(
            f"codebook: {path} is not the one that {weights} was trained with. "
            "Give the codebook of the same VQGAN."
        )


def read_codebook(weights: Path) -> np.ndarray:
    """The code vectors in a trained Kyvo's weights, float32 (num_codes, C).

    Raises:
        InputError: it has none.
    """
    codebook = read_tensor(weights, f"{_EMBEDDING}vqgan_codebook.weight", "Kyvo checkpoint")
    if codebook is None:
        raise InputError(f"Kyvo checkpoint: {weights}: has no codebook. Give codebook=FILE.")
    return codebook.float().numpy()


def _read_llama(path: Path, model: KyvoModel) -> tuple[dict[str, Tensor], str]:
    """Llama's weights under torchtune's names, and the file or folder they came from."""
    files = find_llama(path)
    state: dict[str, Tensor] = {}
    for file in files:
        state |= read_state_dict(file, "Llama weights", shapes_only=_is_meta(model))
    if files[0].suffix == ".pth":
        return _from_meta(state, str(files[0])), str(files[0])
    attention = model.blocks[0].attn
    width = attention.num_heads * attention.head_dim
    try:
        converted = hf_to_tune(
            state, attention.num_heads, attention.num_kv_heads, width, attention.head_dim
        )
    except Exception as error:  # noqa: BLE001 - torchtune raises bare Exception on unknown keys
        raise InputError(f"Llama weights: {path}: {error}. Expected Llama's names.") from None
    return converted, str(path)


def _hugging_face_files(folder: Path) -> list[Path]:
    if (folder / _HF_FILE).is_file():
        return [folder / _HF_FILE]
    if not (folder / _HF_INDEX).is_file():
        return []
    index = read_json(folder / _HF_INDEX, "Llama weights")
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict):
        raise InputError(f"Llama weights: {folder / _HF_INDEX}: no 'weight_map'. Get it again.")
    names = sorted(set(map(str, weight_map.values())))
    return [require_file(folder / Path(name).name, "Llama weights") for name in names]


def _from_meta(state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    try:
        return meta_to_tune(dict(state))
    except Exception as error:  # noqa: BLE001 - torchtune raises bare Exception on unknown keys
        raise InputError(f"{where}: {error}. Expected Meta's parameter names.") from None


def _load(model: KyvoModel, state: Mapping[str, Tensor], where: str, required: set[str]) -> None:
    own = model.state_dict()
    check_weights(state, own, where, optional=own.keys() - required)
    model.load_state_dict(dict(state), strict=False)


def _is_meta(model: KyvoModel) -> bool:
    return model.output.weight.is_meta
