"""One arm of a testbed: a model, its data, and both truths."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.activations.rows import ActivationRows
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.decomposition import Decomposition
from modelassay.subjects.load import verified_subject
from modelassay.subjects.site import Site
from modelassay.subjects.subject import Subject
from modelassay.testbeds.truth import Truth

SITE = Site("module", path="trunk", port="out")
"""Where the arms that `arm_subject` makes are audited."""
_BATCH = 8192
_HELDOUT_EVERY = 5  # every fifth row of the data is held out (ours)


class TrunkAndReader(nn.Module):
    """A model in two parts: what writes the activations, and what reads them."""

    def __init__(self, trunk: nn.Module, reader: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk
        self.reader = reader

    def forward(self, inputs: Tensor) -> Tensor:
        """``reader(trunk(inputs))``."""
        return self.reader(self.trunk(inputs))


def arm_subject(name: str, trunk: nn.Module, reader: nn.Module) -> Subject:
    """A subject whose audited site is the output of `trunk`; share the trunk among the arms."""
    module = TrunkAndReader(trunk, reader).requires_grad_(False).eval()
    return verified_subject(name, module, None, roles=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Arm:
    """A model whose features at one site are known, on data and off it."""

    name: str
    subject: Subject
    site: Site = SITE
    data: Tensor
    """Inputs from the distribution that the model is observed on."""
    interventional: Tensor
    """Inputs on which the data's own dependencies are broken: on the data, features of the
    activations and of the model can be functions of each other."""
    activations_truth: Truth
    """Structure of the data that shows in the activations."""
    model_truth: Truth
    """What the rest of the model reads."""

    @cached_property
    def activations(self) -> Float[Tensor, "input d"]:
        """The site on the data."""
        return activations_at(self.subject, self.site, self.data)

    @cached_property
    def interventional_activations(self) -> Float[Tensor, "input d"]:
        """The site on the interventional inputs."""
        return activations_at(self.subject, self.site, self.interventional)

    @cached_property
    def rows(self) -> ActivationRows:
        """The activations on the data as what `fit` takes: every fifth row is held out."""
        return ActivationRows.of(
            self.activations,
            self.site,
            heldout=torch.arange(len(self.activations)) % _HELDOUT_EVERY == 0,
            subject_name=self.subject.name,
            subject_fingerprint=self.subject.fingerprint(),
            source=f"{self.subject.name} data",
        )

    def output(
        self,
        decomposition: Decomposition | None = None,
        inputs: Tensor | None = None,
    ) -> Float[Tensor, "input output"]:
        """The model's output on some inputs (the data), through a decomposition if one is given."""
        inputs = self.data if inputs is None else inputs
        found: list[Tensor] = []
        for batch in inputs.split(_BATCH):
            edit = {} if decomposition is None else {self.site: decomposition}
            output = self.subject.run(batch, edit=edit).logits
            assert output is not None
            found.append(output)
        return torch.cat(found)

    def codes(self, decomposition: Decomposition) -> Codes:
        """A decomposition's codes on the interventional inputs."""
        return decomposition.encode(self.interventional_activations)


def activations_at(subject: Subject, site: Site, inputs: Tensor) -> Float[Tensor, "input d"]:
    """A site's activations on any number of inputs."""
    return torch.cat(
        [
            subject.run(batch, read=[site], until=site).activations[site].clone()
            for batch in inputs.split(_BATCH)
        ]
    )
