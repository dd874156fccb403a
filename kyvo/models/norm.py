"""torchtune's RMSNorm, for bfloat16 in one kernel."""

import torch.nn.functional as F
import torchtune.modules
from torch import Tensor


class RMSNorm(torchtune.modules.RMSNorm):
    """Root mean square norm, summed in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """Norm of ``x`` (..., dim), in its own type."""
        if x.dtype != self.scale.dtype:
            return super().forward(x)
        # PyTorch's kernel sums in float32 itself; one of two types would be many kernels.
        return F.rms_norm(x, self.normalized_shape, self.scale, self.eps)
