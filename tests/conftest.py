"""What all tests share: no network, no wall-clock judgements, the folder of real models."""

import os
from pathlib import Path

# Set before transformers is imported: a test that needs the hub is marked `network`.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import scipy.sparse
import scipy.stats
import torch
from hypothesis import HealthCheck, settings

# Heavy libraries are imported here and not first by a module of ours: jaxtyping's import hook
# redirects the bytecode cache while one of ours loads, so that all it imports is compiled anew.
from transformers import AutoModelForCausalLM, AutoTokenizer

del scipy, AutoModelForCausalLM, AutoTokenizer

# The same examples on every run, and no deadline: two busy cores are slow in ways that say nothing.
settings.register_profile(
    "house",
    deadline=None,
    derandomize=True,
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("house")

# One thread a worker: two workers share two cores, and reductions keep their order.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real models and texts that this project did not make."""
    folder = Path(os.environ.get("MODELASSAY_SHARED", "../shared")).resolve() / "data"
    if not folder.is_dir():
        pytest.skip(f"no real models here: {folder} does not exist (set MODELASSAY_SHARED)")
    return folder
