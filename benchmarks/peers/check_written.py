"""Load folders that we wrote with the peers' own loaders; `written` calls it.

    .peers/bin/python -m benchmarks.peers.check_written FOLDER

Every ``FORMAT/NAME`` below the folder holds a dictionary and `expected.safetensors` of ours. The
last line printed is a JSON object: the largest differences of codes and reconstructions.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from dictionary_learning.utils import load_dictionary
from sae_lens import SAE
from safetensors.torch import load_file
from sparsify import SparseCoder
from torch import Tensor


def by_saelens(folder: Path, x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and reconstructions by SAELens."""
    sae = SAE.load_from_disk(folder)
    return sae.encode(x), sae(x)


def by_dictionary_learning(folder: Path, x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and reconstructions by dictionary_learning."""
    autoencoder, _ = load_dictionary(str(folder), device="cpu")
    return autoencoder.encode(x), autoencoder(x)


def by_sparsify(folder: Path, x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and reconstructions by sparsify."""
    coder = SparseCoder.load_from_disk(folder)
    values, indices, _ = coder.encode(x)
    return torch.zeros(len(x), coder.num_latents).scatter_(1, indices, values), coder(x).sae_out


LOADERS: dict[str, Callable[[Path, Tensor], tuple[Tensor, Tensor]]] = {
    "saelens": by_saelens,
    "dictionary_learning": by_dictionary_learning,
    "sparsify": by_sparsify,
}


def main() -> None:
    """Print the differences."""
    differences: dict[str, tuple[float, float]] = {}
    for path in sorted(Path(sys.argv[1]).glob("*/*/expected.safetensors")):
        folder, expected = path.parent, load_file(path)
        with torch.no_grad():
            features, reconstruction = LOADERS[folder.parent.name](folder, expected["x"])
        differences[f"{folder.parent.name}/{folder.name}"] = (
            float((features - expected["features"]).abs().max()),
            float((reconstruction - expected["reconstruction"]).abs().max()),
        )
    print(json.dumps(differences))


if __name__ == "__main__":
    main()
