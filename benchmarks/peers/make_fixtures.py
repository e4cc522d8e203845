"""Tiny dictionaries as the peers' own classes write them, with what those compute from them.

    .peers/bin/python -m benchmarks.peers.make_fixtures

Runs in the peers' environment (see README.md here) and needs nothing of ours. Every folder of
`FOLDER` holds what the library wrote and `expected.safetensors`: the inputs `x`, and the
library's `features` and `reconstruction` after it has loaded the folder again; for temporal SAEs
`outputs.safetensors`, with the novel and the predicted codes of whole contexts.
"""

import shutil
from pathlib import Path

from benchmarks.peers.fixtures_dictionary_learning import write_all as write_dictionary_learning
from benchmarks.peers.fixtures_saelens import write_all as write_saelens
from benchmarks.peers.fixtures_sparsify import write_all as write_sparsify
from benchmarks.peers.fixtures_temporal import write_all as write_temporal

FOLDER = Path(__file__).parents[2] / "tests/decompositions/formats/fixtures/peers"


def main() -> None:
    """Replace the folder."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    write_saelens(FOLDER / "saelens")
    write_dictionary_learning(FOLDER / "dictionary_learning")
    write_sparsify(FOLDER / "sparsify")
    write_temporal(FOLDER / "temporal")
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    print(f"{len(files)} files, {sum(path.stat().st_size for path in files) / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
