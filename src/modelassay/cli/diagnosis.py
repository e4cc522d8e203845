"""What `modelassay doctor` looks at."""

from pathlib import Path

import torch

from modelassay.cli.schemas import SCHEMA_VERSION, DoctorResult
from modelassay.core.files import sha256_of_file
from modelassay.core.provenance import Provenance
from modelassay.core.randomness import generator
from modelassay.fitting.forecast_disk import free_bytes

BUNDLED = Path(__file__).resolve().parents[1] / "subjects" / "bundled"


def diagnose(*, device: str, seed: int, out: Path) -> DoctorResult:
    """Look at the installation, the device and the disk.

    Args:
        device: computes a small product, which is compared with the CPU's.
        seed: of that product's factors.
        out: the disk of this folder, or of its nearest existing parent, is measured.
    """
    computes = device_state(device, seed)
    bundled = bundled_state(BUNDLED)
    return {
        "schema_version": SCHEMA_VERSION,
        "healthy": computes == bundled == "intact",
        "versions": Provenance.collect(seed=seed, device=device).versions,
        "device": {
            "name": device,
            "state": computes,
            "accelerators": torch.accelerator.device_count(),
            "threads": torch.get_num_threads(),
        },
        "free_disk_gib": round(free_bytes(out) / 2**30, 1),
        "bundled_model": bundled,
    }


def device_state(device: str, seed: int) -> str:
    """`intact` if the device multiplies as the CPU does, else what is wrong."""
    factor = torch.randn(64, 64, generator=generator(seed))
    try:
        product = (factor.to(device) @ factor.to(device)).cpu()
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        return f"unusable: {str(error).splitlines()[0]}"
    # Loose enough for TF32, which keeps ten bits of the mantissa.
    agrees = torch.allclose(product, factor @ factor, atol=0.5, rtol=1e-2)
    return "intact" if agrees else "unusable: its products differ from the CPU's"


def bundled_state(folder: Path) -> str:
    """`intact` if every file of SHA256SUMS is there and unaltered, else what is wrong."""
    sums = folder / "SHA256SUMS"
    if not sums.is_file():
        return "damaged: SHA256SUMS is missing"
    for line in sums.read_text("utf-8").splitlines():
        digest, name = line.split(maxsplit=1)
        if not (folder / name).is_file():
            return f"damaged: {name} is missing"
        if sha256_of_file(folder / name) != digest:
            return f"damaged: {name} differs from what was published"
    return "intact"
