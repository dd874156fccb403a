"""What a device can do, asked before a run counts on it."""

import pytest
import torch

from kyvo.common.devices import check_float8
from kyvo.common.errors import InputError


def test_without_a_gpu_float8_is_refused() -> None:
    with pytest.raises(InputError, match=r"found no GPU\. Use less"):
        check_float8(torch.device("cpu"), "Use less.")


@pytest.mark.parametrize("capability", [(8, 6), (8, 9), (9, 0)])
def test_float8_needs_ada_or_hopper(
    capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    if capability >= (8, 9):
        check_float8(torch.device("cuda"), "")
    else:
        with pytest.raises(InputError, match=r"found compute capability 8\.6"):
            check_float8(torch.device("cuda"), "")
