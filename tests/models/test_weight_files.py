"""Weights in and out: the released layout, Meta's files, Hugging Face's files, and misfits."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kyvo_stand_ins import TINY_SIZES, golden, golden_model, tiny_model
from safetensors.torch import save_file

from kyvo.common.config import Component
from kyvo.common.errors import InputError
from kyvo.common.weight_files import check_finite, non_finite, read_state_dict, write_torch
from kyvo.models import (
    build_on_meta,
    load_llama,
    load_released,
    load_released_state,
    released_state_dict,
)
from kyvo.tokens.vocabulary import get_vocabulary

IDS_BL = torch.arange(60).reshape(2, 30) * 7
NUM_HEADS, NUM_KV_HEADS, WIDTH = 4, 2, 32


def logits(model):
    with torch.no_grad():
        return model(IDS_BL)


def llama_weights():
    """A Llama with the mini text block, under Meta's names, as its file holds it."""
    body = {
        name: value
        for name, value in released_state_dict(tiny_model(seed=3)).items()
        if name.startswith(("layers.", "norm."))
    }
    text = torch.randn(512, WIDTH, generator=torch.Generator().manual_seed(4))
    rope = {"rope.freqs": torch.ones(WIDTH // NUM_HEADS // 2)}
    return body | rope | {"tok_embeddings.weight": text, "output.weight": text.clone()}


def as_hugging_face(meta):
    """The same weights as transformers lays them out: halves of a head instead of pairs."""

    def halves(weight, num_heads):
        pairs = weight.view(num_heads, -1, 2, weight.shape[1])
        return pairs.transpose(1, 2).reshape(weight.shape)

    names = {
        "attention.wq": "self_attn.q_proj",
        "attention.wk": "self_attn.k_proj",
        "attention.wv": "self_attn.v_proj",
        "attention.wo": "self_attn.o_proj",
        "feed_forward.w1": "mlp.gate_proj",
        "feed_forward.w2": "mlp.down_proj",
        "feed_forward.w3": "mlp.up_proj",
        "attention_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }
    state = {
        "model.embed_tokens.weight": meta["tok_embeddings.weight"],
        "model.norm.weight": meta["norm.weight"],
    }
    for layer in range(2):
        for theirs, ours in names.items():
            weight = meta[f"layers.{layer}.{theirs}.weight"]
            heads = {"attention.wq": NUM_HEADS, "attention.wk": NUM_KV_HEADS}.get(theirs)
            weight = halves(weight, heads) if heads else weight
            state[f"model.layers.{layer}.{ours}.weight"] = weight.contiguous()
    return state


@pytest.fixture
def meta_file(tmp_path):
    path = tmp_path / "llama" / "original" / "consolidated.00.pth"
    path.parent.mkdir(parents=True)
    torch.save(llama_weights(), path)
    return path


def test_released_names_are_metas_with_the_embedding_split():
    state = {n: list(v.shape) for n, v in released_state_dict(golden_model()).items()}
    expected = golden("embeddings.json")["sin_cos_plus_learned"]["keys"]
    embedding = {n: shape for n, shape in expected.items() if n.startswith("tok_embeddings.")}
    layer = {
        "attention.wq": [32, 32],
        "attention.wk": [16, 32],
        "attention.wv": [16, 32],
        "attention.wo": [32, 32],
        "feed_forward.w1": [64, 32],
        "feed_forward.w2": [32, 64],
        "feed_forward.w3": [64, 32],
        "attention_norm": [32],
        "ffn_norm": [32],
    }
    body = {f"layers.{i}.{n}.weight": shape for i in range(2) for n, shape in layer.items()}
    assert state == embedding | body | {"norm.weight": [32], "output.weight": [130495, 32]}


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_released_file_round_trips(tmp_path, suffix):
    model, path = tiny_model(seed=1), tmp_path / f"meta_model_9{suffix}"
    (torch.save if suffix == ".pt" else save_file)(released_state_dict(model), path)
    other = tiny_model(seed=2)
    assert not torch.equal(logits(other), logits(model))
    load_released(other, path)
    assert torch.equal(logits(other), logits(model))


@pytest.mark.parametrize("place", ["file", "its folder", "the folder above"])
def test_llama_is_found_as_file_or_folder(meta_file, place):
    path = {"file": meta_file, "its folder": meta_file.parent}.get(place, meta_file.parents[1])
    model = tiny_model()
    load_llama(model, path)
    llama, released = llama_weights(), released_state_dict(model)
    for name in llama.keys() - {"rope.freqs", "tok_embeddings.weight", "output.weight"}:
        assert torch.equal(released[name], llama[name]), name
    text = released["tok_embeddings.token_embedding.weight"]
    assert torch.equal(text, llama["tok_embeddings.weight"])


def test_the_head_starts_from_the_text_embedding(meta_file):
    model = tiny_model()
    load_llama(model, meta_file, "llama")
    text = llama_weights()["tok_embeddings.weight"]
    assert torch.equal(model.output.weight[:512], text)
    expected = text.mean(dim=0).expand(model.output.out_features - 512, -1)
    torch.testing.assert_close(model.output.weight[512:], expected)


def test_the_references_head_stays_random(meta_file):
    model = tiny_model()
    before = model.output.weight.clone()
    load_llama(model, meta_file, "random")
    assert torch.equal(model.output.weight, before)


@pytest.mark.parametrize("num_files", [1, 2])
def test_hugging_face_files_hold_the_same_llama(meta_file, tmp_path, num_files):
    state = as_hugging_face(llama_weights())
    if num_files == 1:
        save_file(state, tmp_path / "model.safetensors")
    else:
        files = {n: f"model-{i % 2 + 1:05d}-of-00002.safetensors" for i, n in enumerate(state)}
        for file in set(files.values()):
            save_file({n: v for n, v in state.items() if files[n] == file}, tmp_path / file)
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": files}))
    meta, hugging_face = tiny_model(), tiny_model()
    load_llama(meta, meta_file)
    load_llama(hugging_face, tmp_path)
    assert torch.equal(logits(hugging_face), logits(meta))


@pytest.mark.parametrize("index", ["[]", "{}", '{"weight_map": 3}'])
def test_a_broken_index_is_refused(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(InputError, match="weight_map"):
        load_llama(tiny_model(), tmp_path)


def test_an_index_cannot_name_files_elsewhere(tmp_path):
    save_file(as_hugging_face(llama_weights()), tmp_path / "outside.safetensors")
    folder = tmp_path / "llama"
    folder.mkdir()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../outside.safetensors"}}))
    with pytest.raises(InputError, match="no such file"):
        load_llama(tiny_model(), folder)


def test_a_folder_without_llama_says_what_was_looked_for(tmp_path):
    with pytest.raises(InputError, match=r"consolidated\.00\.pth nor model\.safetensors"):
        load_llama(tiny_model(), tmp_path)


def test_all_misfits_are_listed():
    state = released_state_dict(tiny_model())
    del state["norm.weight"]
    state["tok_embeddings.more.weight"] = torch.zeros(1)
    state["output.weight"] = torch.zeros(7, WIDTH)
    state["layers.0.attention.wq.weight"][0, 0] = torch.nan
    with pytest.raises(InputError) as caught:
        load_released_state(tiny_model(), state, "the file")
    message = str(caught.value)
    assert "the file" in message
    assert "missing: norm.scale" in message
    assert "unexpected: tok_embeddings.more.weight" in message
    assert "wrong shape: output.weight (7, 32), not (1159, 32)" in message
    assert "NaN or infinite: layers.0.attn.q_proj.weight" in message


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_and_infinity_are_refused(bad):
    state = released_state_dict(tiny_model(seed=1))
    state["norm.weight"][3] = bad
    model = tiny_model(seed=2)
    before = logits(model)
    with pytest.raises(InputError, match=r"NaN or infinite: norm\.scale"):
        load_released_state(model, state, "file")
    assert torch.equal(logits(model), before)


def test_names_of_another_model_are_refused():
    with pytest.raises(InputError, match="Expected Meta's parameter names"):
        load_released_state(tiny_model(), {"encoder.conv.weight": torch.zeros(1)}, "file")


def test_a_llama_of_another_size_is_refused(tmp_path):
    llama = llama_weights() | {"tok_embeddings.weight": torch.zeros(600, WIDTH)}
    torch.save(llama, tmp_path / "consolidated.00.pth")
    with pytest.raises(InputError, match=r"\(600, 32\), not \(512, 32\)"):
        load_llama(tiny_model(), tmp_path)


OUTLINE = Component("kyvo.models.kyvo_model", TINY_SIZES)


def test_a_model_on_meta_holds_no_weights_and_refuses_as_the_model_does(meta_file, tmp_path):
    model = build_on_meta(OUTLINE, get_vocabulary("mini"))
    assert all(parameter.is_meta for parameter in model.parameters())
    load_llama(model, meta_file)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    assert shapes == {name: value.shape for name, value in tiny_model().state_dict().items()}
    for suffix, save in ((".pt", torch.save), (".safetensors", save_file)):
        state = released_state_dict(tiny_model())
        path = tmp_path / f"model{suffix}"
        save(state, path)
        load_released(model, path)
        del state["norm.weight"]
        state["output.weight"] = torch.zeros(3, 3)
        save(state, path)
        with pytest.raises(InputError, match=r"missing: norm.scale; wrong shape: output"):
            load_released(model, path)


@pytest.mark.parametrize("variant", ["sin_cos_plus_learned", "sin_cos", "learned"])
def test_a_released_checkpoint_is_written_back_as_it_was(variant, tmp_path):
    state = released_state_dict(tiny_model(number_embedding=variant))
    torch.save(state, tmp_path / "meta_model_9.pt")
    model = tiny_model(seed=1, number_embedding=variant)
    load_released(model, tmp_path / "meta_model_9.pt")
    again = released_state_dict(model)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float64, torch.float8_e5m2], ids=str
)
@pytest.mark.parametrize("place", [0, 64, 999])
def test_one_value_that_is_not_finite_is_found_anywhere(value, dtype, place):
    """All these types have infinities; the other tensors are as large as their types allow."""
    tensors = {
        "codes": torch.full((4,), 255, dtype=torch.uint8),
        "none": torch.zeros(0),
        "scalar": torch.tensor(1.0),
        "large": torch.full((3, 5), torch.finfo(dtype).max, dtype=torch.float64).to(dtype).mT,
    }
    assert non_finite(tensors) == []
    check_finite(tensors, "checkpoint x")
    flat = torch.zeros(1000)
    flat[place] = value
    tensors["bad"] = flat.view(10, 100).to(dtype)
    assert non_finite(tensors) == ["bad"]
    where = re.escape(f"[{place // 100}, {place % 100}] of bad")
    with pytest.raises(InputError, match=rf"checkpoint x: NaN or infinite: bad; first at {where}"):
        check_finite(tensors, "checkpoint x")


@pytest.mark.gpu
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_on_the_device_are_checked_alike(value):
    for dtype in (torch.float32, torch.bfloat16):
        good = torch.randn(1 << 20, device="cuda").to(dtype)
        bad = good.clone()
        bad[12345] = value
        assert non_finite({"good": good, "bad": bad, "host": torch.ones(2)}) == ["bad"]


@pytest.mark.parametrize("place", [70, -9, None])
def test_a_flipped_bit_is_found_by_the_hash_beside_the_file(
    place: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "meta_model_0.pt"
    write_torch(path, {"a": torch.arange(1000.0)})
    line = (tmp_path / "meta_model_0.pt.sha256").read_text()
    assert line == f"{hashlib.sha256(path.read_bytes()).hexdigest()}  meta_model_0.pt\n"
    assert torch.equal(read_state_dict(path, "weights")["a"], torch.arange(1000.0))
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if place is None else place] ^= 1
    path.write_bytes(content)
    for shapes_only in (False, True):
        with pytest.raises(InputError, match=rf"weights: {path}: damaged, or not what .*sha256"):
            read_state_dict(path, "weights", shapes_only=shapes_only)
    write_torch(path, {"a": torch.zeros(2)})
    assert len(read_state_dict(path, "weights")["a"]) == 2


FULL_DISK = """
import resource, signal, sys, torch
from pathlib import Path
from kyvo.common.errors import InputError
from kyvo.common.weight_files import write_torch
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write_torch(Path(sys.argv[1]), {"a": torch.zeros(100_000)})
except InputError as error:
    print(error)
"""


def test_weights_on_a_full_disk_are_reported_with_path_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "meta_model_0.pt"
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"{path}: ")
    assert " are free. " in done.stdout
    assert list(tmp_path.iterdir()) == []
