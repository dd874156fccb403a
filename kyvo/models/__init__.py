"""The language model and its weights."""

from kyvo.models.builders import (
    KyvoModel,
    kyvo_model,
    llama3_2_1b,
    llama3_2_3b,
    num_parameters,
    resolve_dtype,
)
from kyvo.models.weights import (
    load_llama,
    load_released,
    load_released_state,
    released_state_dict,
)

__all__ = [
    "KyvoModel",
    "kyvo_model",
    "llama3_2_1b",
    "llama3_2_3b",
    "load_llama",
    "load_released",
    "load_released_state",
    "num_parameters",
    "released_state_dict",
    "resolve_dtype",
]
