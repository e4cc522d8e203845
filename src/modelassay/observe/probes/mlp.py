"""Non-linear probes: what a small network can decode, which need not be what a layer can read."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from modelassay.core.errors import ValueRangeError
from modelassay.observe.probes.data import ProbeData, group_folds
from modelassay.observe.probes.probe import Probe, Scaling

Parameters = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class MlpHead:
    """``W_2 relu(W_1 x + b_1) + b_2``, one logit for each class."""

    hidden: Float[Tensor, "width unit"]
    hidden_bias: Float[Tensor, " unit"]
    out: Float[Tensor, "unit class"]
    out_bias: Float[Tensor, " class"]

    def log_probabilities(self, scaled: Float[Tensor, "item width"]) -> Float[Tensor, "item class"]:
        """Log-softmax."""
        units = torch.relu(scaled @ self.hidden + self.hidden_bias)
        return (units @ self.out + self.out_bias).log_softmax(1)

    def covector(self) -> Float[Tensor, " width"] | None:
        """None: there is no single direction."""
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Mlp:
    """One hidden layer, trained by AdamW and stopped early on held-out groups.

    Its capacity lets it learn labels that the model does not represent: read its selectivity
    beside its accuracy (Hewitt & Liang 2019 find an MLP's far below a linear probe's).
    """

    n_hidden: int = 64
    rate: float = 3e-3
    weight_decay: float = 1e-2
    n_epochs: int = 200
    batch_items: int = 256
    patience: int = 10
    """Epochs without a lower loss on the held-out fifth of the groups before it stops."""

    @property
    def name(self) -> str:
        """Named in reports."""
        return f"MLP of {self.n_hidden}"

    def fit(self, data: ProbeData, generator: torch.Generator) -> Probe:
        """Fit to training items, of which a fifth (by groups) says when to stop.

        Raises:
            ValueRangeError: if there is one class only, or no hidden unit.
        """
        data.require_classes()
        if self.n_hidden < 1:
            raise ValueRangeError(f"n_hidden must be at least 1; got {self.n_hidden}. Raise it.")
        scaling = Scaling.of(data.activations)
        inputs = scaling(data.activations).float()
        held = group_folds(data, 5, generator) == 0
        if not bool(held.any()) or bool(held.all()):  # a single group cannot be divided
            held = torch.zeros_like(held)
        parameters = self._start(inputs.shape[1], data.n_classes, generator)
        best, epochs = self._train(parameters, inputs, data.labels, held, generator)
        doubles = [parameter.double() for parameter in best]
        return Probe(
            method=self.name,
            classes=data.classes,
            scaling=scaling,
            head=MlpHead(
                hidden=doubles[0], hidden_bias=doubles[1], out=doubles[2], out_bias=doubles[3]
            ),
            trained_on=data.named_groups,
            facts={"epochs": float(epochs)},
        )

    def _start(self, width: int, n_classes: int, generator: torch.Generator) -> Parameters:
        """He's initialisation."""
        hidden = torch.randn(width, self.n_hidden, generator=generator) * (2 / width) ** 0.5
        out = torch.randn(self.n_hidden, n_classes, generator=generator) * self.n_hidden**-0.5
        parts = (hidden, torch.zeros(self.n_hidden), out, torch.zeros(n_classes))
        return tuple(part.requires_grad_() for part in parts)  # type: ignore[return-value]

    def _train(
        self, parameters: Parameters, inputs: Tensor, labels: Int[Tensor, " item"],
        held: Tensor, generator: torch.Generator,
    ) -> tuple[list[Tensor], int]:  # fmt: skip
        optimizer = torch.optim.AdamW(parameters, lr=self.rate, weight_decay=self.weight_decay)
        train = (~held).nonzero()[:, 0]
        judged = held.nonzero()[:, 0] if bool(held.any()) else train
        best, lowest, since, epochs = _copies(parameters), torch.inf, 0, 0
        while epochs < self.n_epochs and since < self.patience:
            shuffled = train[torch.randperm(len(train), generator=generator)]
            for batch in shuffled.split(self.batch_items):
                optimizer.zero_grad()
                functional.cross_entropy(
                    _logits(parameters, inputs[batch]), labels[batch]
                ).backward()
                optimizer.step()
            with torch.no_grad():
                logits = _logits(parameters, inputs[judged])
                loss = float(functional.cross_entropy(logits, labels[judged]))
            epochs, since = epochs + 1, since + 1
            if loss < lowest:
                best, lowest, since = _copies(parameters), loss, 0
        return best, epochs


def _logits(parameters: Parameters, inputs: Tensor) -> Tensor:
    hidden, hidden_bias, out, out_bias = parameters
    return torch.relu(inputs @ hidden + hidden_bias) @ out + out_bias


def _copies(parameters: Parameters) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]
