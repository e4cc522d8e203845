"""Whether the peers' own loaders reproduce our reconstructions from the folders that we write.

    python -m benchmarks.peers.written [--python PATH]

Writes dictionaries of every sparsifier in every format, with random weights, loads them in the
peers' environment (`check_written`) and prints the largest differences.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.peers.environment import add_option, peers_python, run_in
from modelassay.core.errors import ModelassayError
from modelassay.core.randomness import generator
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.formats.registry import WRITERS, write_dictionary
from modelassay.decompositions.sparsifiers import (
    AbsTopKActivation,
    BatchTopKActivation,
    GroupMaxActivation,
    JumpReLUActivation,
    ReLUActivation,
    TopKActivation,
)
from modelassay.subjects.site import Site

D, WIDTH, K, TOKENS = 12, 24, 4, 64
HERE, THERE = Site("resid_post", 3), Site("mlp_out", 4)


def dictionaries() -> Iterator[tuple[str, Dictionary]]:
    """Every sparsifier in both conventions of the encoder's bias, and a transcoder."""
    source = generator(0)
    thresholds = torch.rand(WIDTH, generator=source)
    for activation in (
        ReLUActivation(),
        TopKActivation(K),
        AbsTopKActivation(K),
        GroupMaxActivation(K),
        BatchTopKActivation(K, 0.7),
        JumpReLUActivation(thresholds),
    ):
        for subtracts in (True, False):
            convention = "x - b_dec" if subtracts else "x"
            yield (
                f"{activation.kind}, encodes {convention}",
                random_dictionary(activation, source, subtracts=subtracts),
            )
    yield (
        "topk, transcoder",
        random_dictionary(TopKActivation(K), source, subtracts=False, writes=THERE),
    )


def random_dictionary(
    activation: torch.nn.Module,
    source: torch.Generator,
    *,
    subtracts: bool,
    writes: Site = HERE,
) -> Dictionary:
    """A dictionary with unit rows, as fits leave them, so that codes can be compared too."""
    draw = lambda *shape: torch.randn(*shape, generator=source)  # noqa: E731
    rows = draw(WIDTH, D)
    return Dictionary(
        W_enc=draw(D, WIDTH) / D**0.5,
        b_enc=draw(WIDTH) / 2,
        W_dec=rows / rows.norm(dim=1, keepdim=True),
        b_dec=draw(D) / 2,
        activation=activation,  # pyright: ignore[reportArgumentType]
        reads=HERE,
        writes=writes,
        apply_b_dec_to_input=subtracts,
    )


def main() -> None:
    """Write, let the peers read, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_option(parser)
    python = peers_python(parser.parse_args().python)
    x = 2 * torch.randn(TOKENS, D, generator=generator(1)) + 0.5
    print("| format | dictionary | codes | reconstructions |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as root:
        rows: dict[str, tuple[str, str, str]] = {}
        for number, (name, dictionary) in enumerate(dictionaries()):
            with torch.no_grad():
                codes, reconstruction = dictionary.encode(x).dense(), dictionary(x)
            for to in WRITERS:
                if to == "modelassay":
                    continue
                folder = Path(root) / to / str(number)
                try:
                    write_dictionary(dictionary, folder, to=to)
                except ModelassayError as error:
                    rows[f"{to}/{number}"] = (to, name, f"not written: {type(error).__name__}")
                    continue
                rows[f"{to}/{number}"] = (to, name, "")
                tensors = {"x": x, "features": codes, "reconstruction": reconstruction}
                save_file(tensors, folder / "expected.safetensors")
        differences = json.loads(run_in(python, "check_written", root).splitlines()[-1])
    for key, (to, name, refused) in sorted(rows.items()):
        found = refused + " | –" if refused else "{:.1e} | {:.1e}".format(*differences[key])
        print(f"| {to} | {name} | {found} |")


if __name__ == "__main__":
    main()
