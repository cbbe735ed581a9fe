import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may wait for a network
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores: with more threads each waits for all


@pytest.fixture(scope="session")
def workspace(tmp_path_factory):
    """A folder with `data/` (9 images) and `sam/` (a small checkpoint); runs go beside them."""
    from tests.training.runs import write_checkpoint, write_data

    folder = tmp_path_factory.mktemp("workspace")
    write_data(folder / "data")
    write_checkpoint(folder / "sam")
    return folder


@pytest.fixture(scope="session")
def finished(workspace):
    """A finished quick run; do not change it."""
    from convlora.training.run import train
    from tests.training.runs import quick_settings

    return train(quick_settings(workspace, "finished"))
