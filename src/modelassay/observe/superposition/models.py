"""Many toy models in one batched tensor, and the gradients of their loss.

    h = W x  (or ReLU(W x)),    x' = ReLU(V h + b)  (or V h + b),    V = W^T unless untied

    loss = E sum_i I_i (x'_i - y_i)^2

with y = x, or y = |x| for the task of computing (Elhage et al. 2022). The gradients are written
out; a test compares them with autograd.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Inputs = Float[Tensor, "instance input feature"]


@dataclass(frozen=True, kw_only=True, eq=False)
class ToyModels:
    """Models of one shape; instance by instance they share nothing."""

    encoder: Float[Tensor, "instance hidden feature"]
    bias: Float[Tensor, "instance feature"]
    decoder: Float[Tensor, "instance feature hidden"] | None = None
    """None: the encoder's transpose."""
    hidden_relu: bool = False
    output_relu: bool = True

    def parameters(self) -> dict[str, Tensor]:
        """What is trained, by name."""
        found = {"encoder": self.encoder, "bias": self.bias}
        return found if self.decoder is None else found | {"decoder": self.decoder}

    def read(self) -> Float[Tensor, "instance feature hidden"]:
        """The weights from hidden units to outputs."""
        return self.encoder.mT if self.decoder is None else self.decoder

    def hidden(self, inputs: Inputs) -> Float[Tensor, "instance input hidden"]:
        """What stands between encoder and decoder."""
        hidden = inputs @ self.encoder.mT
        return hidden.relu() if self.hidden_relu else hidden

    def __call__(self, inputs: Inputs) -> Inputs:
        """The outputs."""
        return self._outputs(self.hidden(inputs))

    def _outputs(self, hidden: Tensor) -> Tensor:
        outputs = torch.baddbmm(self.bias[:, None], hidden, self.read().mT)
        return outputs.relu_() if self.output_relu else outputs

    def loss(
        self,
        inputs: Inputs,
        targets: Inputs,
        importance: Float[Tensor, "instance feature"],
        weights: Float[Tensor, "instance input"] | None = None,
    ) -> Float[Tensor, " instance"]:
        """Weighted squared error: summed over features, averaged over inputs."""
        errors = ((self(inputs) - targets).square() * importance[:, None]).sum(-1)
        return errors.mean(1) if weights is None else (errors * weights).sum(1)

    def gradients(
        self,
        inputs: Inputs,
        targets: Inputs,
        importance: Float[Tensor, "instance feature"],
        weights: Float[Tensor, "instance input"] | None = None,
    ) -> tuple[dict[str, Tensor], Float[Tensor, " instance"]]:
        """Gradients of every instance's own loss by parameter, and the losses."""
        hidden = self.hidden(inputs)
        outputs = self._outputs(hidden)
        error = outputs - targets
        share = 1 / inputs.shape[1] if weights is None else weights[..., None]
        slope = error * importance[:, None] * share
        loss = torch.einsum("nbf,nbf->n", slope, error)
        slope = 2 * slope
        if self.output_relu:
            slope = slope * (outputs > 0)
        to_hidden = slope @ self.read()
        if self.hidden_relu:
            to_hidden = to_hidden * (hidden > 0)
        gradients = {"encoder": to_hidden.mT @ inputs, "bias": slope.sum(1)}
        decoder = slope.mT @ hidden
        if self.decoder is None:
            gradients["encoder"] += decoder.mT
        else:
            gradients["decoder"] = decoder
        return gradients, loss

    def at(self, instances: Tensor | list[int] | slice) -> "ToyModels":
        """Some of the instances."""
        return ToyModels(
            encoder=self.encoder[instances],
            bias=self.bias[instances],
            decoder=None if self.decoder is None else self.decoder[instances],
            hidden_relu=self.hidden_relu,
            output_relu=self.output_relu,
        )

    def rescaled(self) -> "ToyModels":
        """The same functions, with 1 as the largest weight into every hidden unit.

        A unit of ReLU may be divided by c > 0 if what reads it is multiplied by c: only in this
        form can units be compared. Tied models stay as they are.
        """
        if self.decoder is None:
            return self
        largest = self.encoder.abs().amax(2).clamp_min(1e-12)
        return ToyModels(
            encoder=self.encoder / largest[..., None],
            bias=self.bias,
            decoder=self.decoder * largest[:, None],
            hidden_relu=self.hidden_relu,
            output_relu=self.output_relu,
        )


def random_models(
    n_instances: int,
    n_features: int,
    n_hidden: int,
    generator: torch.Generator,
    *,
    tied: bool = True,
    hidden_relu: bool = False,
    output_relu: bool = True,
) -> ToyModels:
    """Models with Xavier-normal weights, of variance ``2 / (n + m)``, and biases of 0."""
    deviation = math.sqrt(2 / (n_features + n_hidden))

    def drawn(rows: int, columns: int) -> Tensor:
        size = (n_instances, rows, columns)
        return torch.randn(size, generator=generator, device=generator.device) * deviation

    return ToyModels(
        encoder=drawn(n_hidden, n_features),
        bias=torch.zeros(n_instances, n_features, device=generator.device),
        decoder=None if tied else drawn(n_features, n_hidden),
        hidden_relu=hidden_relu,
        output_relu=output_relu,
    )
