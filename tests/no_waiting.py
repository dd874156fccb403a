"""A trap for what would make the host wait for a GPU, on any device."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# On a GPU each of them makes the host wait for what the tensor holds.
WAITING = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten.equal,
    aten.is_nonzero,
    aten.bincount,
}


class NoWaiting(TorchDispatchMode):
    """Refuses what would wait for a GPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        indices = args[1] if function.overloadpacket in (aten.index, aten.index_put_) else ()
        by_mask = any(i is not None and i.dtype == torch.bool for i in indices)
        assert function.overloadpacket not in WAITING, f"{function} waits for the device"
        assert not by_mask, "indexing by a mask waits for the device"
        return function(*args, **(kwargs or {}))
