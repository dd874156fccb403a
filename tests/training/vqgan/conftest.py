"""What the tests of VQGAN training share."""

from collections.abc import Iterator
from functools import partial

import pytest

from kyvo.training.vqgan.discriminator import PatchDiscriminator


@pytest.fixture(scope="module")
def narrow_discriminator() -> Iterator[None]:
    """An eighth of its channels: most of the time would go into it and its checkpoints."""
    with pytest.MonkeyPatch.context() as patches:
        narrow = partial(PatchDiscriminator, width=8)
        patches.setattr("kyvo.training.vqgan.step.PatchDiscriminator", narrow)
        yield
