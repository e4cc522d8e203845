"""Which implementation of the kernels is used where."""

import importlib.util
import threading

import pytest
import torch

from modelassay.core.errors import MissingExtraError, UnknownNameError
from modelassay.decompositions.kernels_interface import Kernels, kernels_for, using_kernels
from modelassay.decompositions.kernels_torch import TORCH, TorchKernels
from modelassay.decompositions.selection import topk

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
WITH_TRITON = importlib.util.find_spec("triton") is not None


class Recorder(TorchKernels):
    """Counts the selections that it makes."""

    selections = 0

    def topk(self, pre, k):
        self.selections += 1
        return super().topk(pre, k)


def test_the_cpu_uses_plain_torch():
    assert isinstance(TORCH, Kernels)
    assert kernels_for(CPU) is TORCH


@pytest.mark.skipif(WITH_TRITON, reason="needs a machine without triton")
def test_cuda_uses_plain_torch_where_triton_is_missing():
    assert kernels_for(CUDA) is TORCH


@pytest.mark.skipif(not WITH_TRITON, reason="needs the package triton")
def test_cuda_uses_triton_where_it_is_installed():
    assert type(kernels_for(CUDA)).__name__ == "TritonKernels"
    with using_kernels("torch"):
        assert kernels_for(CUDA) is TORCH


@pytest.mark.skipif(WITH_TRITON, reason="needs a machine without triton")
def test_asking_for_triton_names_the_command_that_installs_it():
    with pytest.raises(MissingExtraError) as missing, using_kernels("triton"):
        pass
    assert str(missing.value) == (
        "This needs the package 'triton', which is not installed. "
        "Install it with: pip install 'modelassay[triton]'"
    )
    assert kernels_for(CPU) is TORCH


def test_an_unknown_implementation_is_refused():
    with pytest.raises(UnknownNameError, match=r"must be one of: torch, triton; got 'cuda'"):
        using_kernels("cuda").__enter__()


def test_the_choice_ends_with_its_block_and_stays_in_its_thread(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr("modelassay.decompositions.kernels_interface.TORCH", recorder)
    elsewhere = []
    with using_kernels("torch"):
        monkeypatch.undo()
        topk(torch.ones(1, 3), 1)
        thread = threading.Thread(target=lambda: elsewhere.append(kernels_for(CPU)))
        thread.start()
        thread.join()
    topk(torch.ones(1, 3), 1)
    assert recorder.selections == 1
    assert elsewhere == [TORCH]
