"""What all tests share: repeatable property tests, a private cache folder, Triton's interpreter."""

import os
from collections.abc import Iterator

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the process for tests, unless it only waits for workers, which do the same."""
    if config.getoption("tx", None) and not hasattr(config, "workerinput"):
        return
    # What takes seconds to import is imported where it is needed.
    import torch
    from hypothesis import HealthCheck, settings

    if not torch.cuda.is_available():
        # Triton's kernels are then run by its interpreter, which it asks for when it defines them.
        os.environ["TRITON_INTERPRET"] = "1"
    settings.register_profile(
        "repeatable",
        deadline=None,
        derandomize=True,
        database=None,
        max_examples=40,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="session")
def private_cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing a test does lands in the user's own cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache_home")))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked ``gpu`` where there is none, and those marked ``interpreted`` elsewhere."""
    import torch

    mark, reason = "gpu", "needs a CUDA device"
    if torch.cuda.is_available():
        mark, reason = "interpreted", "Triton compiles its kernels for the GPU here"
    for item in items:
        if item.get_closest_marker(mark):
            item.add_marker(pytest.mark.skip(reason=reason))
