"""An optimizer's state as named tensors and JSON values, without pickle.

torchao's 8-bit optimizers keep their state in tensor subclasses; those are taken apart with
PyTorch's subclass protocol and put together again.
"""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from kyvo.common.errors import InputError

_SUBCLASS_HOME = "torchao.optim."


def optimizer_state(
    optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors by ``parameter|key[|part]``, and the JSON values beside them."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for name, parameter in parameters.items():
        for key, item in optimizer.state.get(parameter, {}).items():
            place = f"{name}|{key}"
            if not isinstance(item, Tensor):
                values[place] = {"value": item}
            elif type(item) is Tensor:
                tensors[place] = item
            else:
                parts, context = item.__tensor_flatten__()  # type: ignore[attr-defined]
                kind = f"{type(item).__module__}.{type(item).__qualname__}"
                values[place] = {"class": kind, "parts": parts, "context": context}
                tensors |= {f"{place}|{part}": getattr(item, part) for part in parts}
    return tensors, {"state": values, "groups": [_plain(g) for g in optimizer.param_groups]}


def restore_optimizer(
    optimizer: Optimizer,
    parameters: Mapping[str, nn.Parameter],
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Any],
) -> None:
    """Put a saved state into a fresh ``optimizer`` over the same parameters."""
    # Unless the step runs on the device, its counter stays on the host.
    step_on_device = any(g.get("fused") or g.get("capturable") for g in optimizer.param_groups)
    for place, item in _items(tensors, values["state"]):
        name, key = place.split("|")
        if name not in parameters:
            raise InputError(f"checkpoint: optimizer state of unknown parameter {name}")
        parameter = parameters[name]
        if isinstance(item, Tensor) and (key != "step" or step_on_device):
            item = _laid_out_like(parameter, item.to(parameter.device))
        optimizer.state[parameter][key] = item
    for group, saved in zip(optimizer.param_groups, values["groups"], strict=True):
        for key, value in saved.items():
            if isinstance(group.get(key), Tensor):
                group[key].fill_(value)
            else:
                group[key] = tuple(value) if isinstance(value, list) else value


def restore_scheduler(scheduler: LRScheduler, step: int) -> None:
    """Set a fresh ``scheduler`` to ``step``: a schedule is a function of the step alone."""
    scheduler.load_state_dict(
        scheduler.state_dict() | {"last_epoch": step, "_step_count": step + 1}
    )


def _laid_out_like(parameter: nn.Parameter, item: Tensor) -> Tensor:
    """Give a state of the parameter's shape its memory layout, which fused kernels rely on."""
    if type(item) is not Tensor or item.shape != parameter.shape:
        return item
    return torch.empty_like(parameter, dtype=item.dtype, requires_grad=False).copy_(item)


def _plain(group: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter group's settings; torchao keeps its learning rate in a tensor."""
    settings = {key: value for key, value in group.items() if key != "params"}
    return {k: v.item() if isinstance(v, Tensor) else v for k, v in settings.items()}


def _items(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for place, tensor in tensors.items():
        if place.count("|") == 1:
            yield place, tensor
    for place, value in values.items():
        if "value" in value:
            yield place, value["value"]
        else:
            module, _, name = value["class"].rpartition(".")
            if not module.startswith(_SUBCLASS_HOME):
                raise InputError(f"checkpoint: optimizer state of class {value['class']}")
            parts = {part: tensors[f"{place}|{part}"] for part in value["parts"]}
            kind = getattr(importlib.import_module(module), name)
            yield place, kind.__tensor_unflatten__(parts, value["context"], None, None)


def random_state() -> dict[str, Tensor]:
    """The states of torch's generators, as tensors."""
    states = {"random-cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["random-cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_state(tensors: Mapping[str, Tensor]) -> None:
    """Set torch's generators as ``random_state`` found them."""
    torch.set_rng_state(tensors["random-cpu"])
    if torch.cuda.is_available() and "random-cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random-cuda"])
