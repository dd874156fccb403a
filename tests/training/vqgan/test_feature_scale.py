import dataclasses

import numpy as np
import torch
from vqgan_fixtures import SMALL, random_images, with_named_weights

from kyvo.images.preprocessing import to_model_range
from kyvo.images.vqgan import VQGAN
from kyvo.training.vqgan.feature_scale import pixel_metric, scale_features


def test_scaling_leaves_images_and_evens_the_metric() -> None:
    model = with_named_weights(VQGAN(dataclasses.replace(SMALL, embed_dim=4)))
    images = to_model_range(random_images(8))

    def metric() -> torch.Tensor:
        return pixel_metric(model, images, torch.Generator().manual_seed(0))

    before = model.decode_embeddings(model.features(images)).detach()
    scale_features(model, metric())
    after = model.decode_embeddings(model.features(images)).detach()
    np.testing.assert_allclose(after, before, atol=1e-3)
    np.testing.assert_allclose(metric(), np.eye(4), atol=0.02)
