import numpy as np
import pytest
import torch

from kyvo.images.muon import Muon, orthogonalise


@pytest.mark.parametrize("shape", [(2, 8, 20), (2, 20, 8), (1, 6, 6)])
def test_orthogonalise_keeps_directions_and_evens_lengths(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalise(matrices)
    lengths = torch.linalg.svdvals(found)
    assert lengths.min() > 0.5
    assert lengths.max() < 1.3
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    aligned = left.mT @ found @ right.mT
    off_diagonal = aligned - torch.diag_embed(torch.diagonal(aligned, dim1=1, dim2=2))
    np.testing.assert_allclose(off_diagonal, 0, atol=1e-3)


def test_equal_shapes_are_updated_on_their_own() -> None:
    values = torch.randn(3, 4, 2, 3, 3, generator=torch.Generator().manual_seed(1))
    together = [torch.nn.Parameter(value.clone()) for value in values]
    alone = [torch.nn.Parameter(value.clone()) for value in values]
    for optimizer in (Muon(together, lr=0.1), *(Muon([w], lr=0.1) for w in alone)):
        for _ in range(3):
            optimizer.zero_grad()
            weights = optimizer.param_groups[0]["params"]
            sum((weight**2).sum() for weight in weights).backward()
            optimizer.step()
    for first, second in zip(together, alone, strict=True):
        np.testing.assert_allclose(first.detach(), second.detach(), atol=1e-5)
    assert all(w.square().sum() < v.square().sum() for w, v in zip(together, values, strict=True))
