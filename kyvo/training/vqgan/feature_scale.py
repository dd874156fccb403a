"""Features in units of the pixel change they cause, so that nearest means least visible.

A trained autoencoder may spend most of its features' variance on what hardly shows. Clustering
them as they are would waste the codes on that. A linear map between the encoder and the decoder,
folded into their 1 x 1 convolutions, leaves the images as they are and makes squared distances
of features approximate squared pixel errors.
Shape legend: B batch, C channels, H height, W width, D embedding dimensions.
"""

import torch
from torch import Tensor

from kyvo.images.quantizers import as_rows
from kyvo.images.vqgan import VQGAN

_LEAST_SHARE = 1e-4  # of the strongest direction; weaker ones are stretched no further


def pixel_metric(model: VQGAN, images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """E[J^T J], (D, D), of the decoder's Jacobian J at one position's feature vector.

    Estimated from gradients of random projections of the image.
    """
    z_BDHW = model.features(images_BCHW).detach().requires_grad_(True)
    output_BCHW = model.decode_embeddings(z_BDHW)
    noise_BCHW = torch.randn(output_BCHW.shape, generator=generator).to(output_BCHW)
    (gradient_BDHW,) = torch.autograd.grad(output_BCHW, z_BDHW, noise_BCHW)
    rows_ND = as_rows(gradient_BDHW).float()
    return rows_ND.T @ rows_ND / len(rows_ND)


@torch.no_grad()
def scale_features(model: VQGAN, metric_DD: Tensor) -> None:
    """Multiply features by the metric's square root, and undo it at the decoder's door."""
    shares_D, directions_DD = torch.linalg.eigh(metric_DD.double())
    lengths_D = shares_D.clamp_min(_LEAST_SHARE * shares_D.max()).sqrt()
    forth_DD = (directions_DD * lengths_D @ directions_DD.T).float()
    back_DD = (directions_DD / lengths_D @ directions_DD.T).float()
    into, out_of = model.quant_conv, model.post_quant_conv
    assert into.bias is not None
    into.weight.copy_(torch.einsum("ij,jchw->ichw", forth_DD, into.weight))
    into.bias.copy_(forth_DD @ into.bias)
    out_of.weight.copy_(torch.einsum("cihw,ij->cjhw", out_of.weight, back_DD))
