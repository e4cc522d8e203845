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
from modelassay.decompositions.gated import GatedActivation
from modelassay.decompositions.matching_pursuit import MatchingPursuitActivation
from modelassay.decompositions.residual_pursuit import ResidualPursuitActivation
from modelassay.decompositions.sparsifiers import (
    AbsTopKActivation,
    BatchTopKActivation,
    GroupMaxActivation,
    JumpReLUActivation,
    ReLUActivation,
    TopKActivation,
)
from modelassay.subjects.site import Site

FORMATS = tuple(to for to in WRITERS if to != "modelassay")
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
        GatedActivation(thresholds - 0.5, thresholds / 2),
    ):
        for subtracts in (True, False):
            convention = "x - b_dec" if subtracts else "x"
            yield (
                f"{activation.kind}, encodes {convention}",
                random_dictionary(activation, source, subtracts=subtracts),
            )
    for pursuit in (
        MatchingPursuitActivation(K),
        ResidualPursuitActivation(2 * K, 0.8),
        ResidualPursuitActivation(2 * K, 0.8, ends_at_repeats=False),
    ):
        dictionary = random_dictionary(pursuit, source, subtracts=True)
        dictionary.W_enc.data = dictionary.W_dec.data.t()
        dictionary.b_enc.data.zero_()
        ends = f"{pursuit.kind} {getattr(pursuit, 'ends_at_repeats', '')}".strip()
        yield f"{ends}, encodes x - b_dec", dictionary
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
    names: dict[str, tuple[str, str]] = {}
    refused: dict[str, list[str]] = {to: [] for to in FORMATS}
    with tempfile.TemporaryDirectory() as root:
        for number, (name, dictionary) in enumerate(dictionaries()):
            with torch.no_grad():
                codes, reconstruction = dictionary.encode(x).dense(), dictionary(x)
            tensors = {"x": x, "features": codes, "reconstruction": reconstruction}
            for to in FORMATS:
                folder = Path(root) / to / f"{number:02}"
                try:
                    write_dictionary(dictionary, folder, to=to)
                except ModelassayError:
                    refused[to].append(name)
                    continue
                names[f"{to}/{number:02}"] = (to, name)
                save_file(tensors, folder / "expected.safetensors")
        differences = json.loads(run_in(python, "check_written", root).splitlines()[-1])
    print("| format | dictionary | codes | reconstructions |\n|---|---|---|---|")
    for key, (to, name) in sorted(names.items()):
        codes_differ, reconstructions_differ = differences[key]
        print(f"| {to} | {name} | {codes_differ:.1e} | {reconstructions_differ:.1e} |")
    for to in FORMATS:
        print(f"\nNo form in {to}, and refused: {'; '.join(refused[to])}.")


if __name__ == "__main__":
    main()
