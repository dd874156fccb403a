"""The language model and its weights."""

from kyvo.models.builders import (
    build_on_meta,
    kyvo_model,
    llama3_2_1b,
    llama3_2_3b,
    num_parameters,
    resolve_dtype,
)
from kyvo.models.checkpoints import (
    MODEL,
    OPTIMIZER,
    STATE,
    Checkpoint,
    Files,
    find_weights,
    latest_checkpoint,
    report_skipped,
    save_checkpoint,
    with_whole_weights,
    write_folder,
)
from kyvo.models.kv_cache import CacheStep, KVCache
from kyvo.models.llama import KyvoModel
from kyvo.models.weights import (
    check_codebook,
    find_llama,
    load_llama,
    load_released,
    load_released_state,
    read_codebook,
    released_state_dict,
)

__all__ = [
    "MODEL",
    "OPTIMIZER",
    "STATE",
    "CacheStep",
    "Checkpoint",
    "Files",
    "KVCache",
    "KyvoModel",
    "build_on_meta",
    "check_codebook",
    "find_llama",
    "find_weights",
    "kyvo_model",
    "latest_checkpoint",
    "llama3_2_1b",
    "llama3_2_3b",
    "load_llama",
    "load_released",
    "load_released_state",
    "num_parameters",
    "read_codebook",
    "released_state_dict",
    "report_skipped",
    "resolve_dtype",
    "save_checkpoint",
    "with_whole_weights",
    "write_folder",
]
