"""SqueezeNet 1.0 (Iandola et al. 2016), with the parameter names of torchvision."""

from pathlib import Path
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modelassay.core.errors import CorruptFileError
from modelassay.core.files import read_tensors

N_CLASSES = 1000
_WEIGHTS = "model.safetensors"


@final
class Fire(nn.Module):
    """A 1x1 convolution that squeezes, and two side by side that expand; all rectified."""

    def __init__(self, width: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(width, squeezed, 1)
        self.squeeze_activation = nn.ReLU(inplace=True)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand1x1_activation = nn.ReLU(inplace=True)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)
        self.expand3x3_activation = nn.ReLU(inplace=True)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        """The 1x1 expansion's channels, then the 3x3 expansion's."""
        x = self.squeeze_activation(self.squeeze(x))
        one = self.expand1x1_activation(self.expand1x1(x))
        three = self.expand3x3_activation(self.expand3x3(x))
        return torch.cat([one, three], 1)


@final
class SqueezeNet(nn.Module):
    """The classifier; images of any size from about 32 pixels, as ImageNet's are normalised."""

    def __init__(self, classes: int = N_CLASSES) -> None:
        super().__init__()

        def pool() -> nn.Module:
            return nn.MaxPool2d(3, stride=2, ceil_mode=True)

        self.features = nn.Sequential(
            nn.Conv2d(3, 96, 7, stride=2),
            nn.ReLU(inplace=True),
            pool(),
            Fire(96, 16, 64),
            Fire(128, 16, 64),
            Fire(128, 32, 128),
            pool(),
            Fire(256, 32, 128),
            Fire(256, 48, 192),
            Fire(384, 48, 192),
            Fire(384, 64, 256),
            pool(),
            Fire(512, 64, 256),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.5),
            nn.Conv2d(512, classes, 1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d(1),
        )

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n classes"]:
        """One logit a class."""
        return self.classifier(self.features(x)).flatten(1)


def is_squeezenet_folder(folder: str | Path) -> bool:
    """Whether a folder holds weights, no configuration, and so may be one of this module's."""
    folder = Path(folder)
    return (folder / _WEIGHTS).is_file() and not (folder / "config.json").exists()


def load_squeezenet(folder: str | Path) -> SqueezeNet:
    """The network with the weights of `model.safetensors` in a folder, frozen, for evaluation.

    Raises:
        CorruptFileError: if the file is damaged, or is no SqueezeNet 1.0 of torchvision's names.
        FileNotFoundError: if there is none.
    """
    path = Path(folder).expanduser() / _WEIGHTS
    tensors = read_tensors(path)
    head = tensors.get("classifier.1.weight")
    network = SqueezeNet(N_CLASSES if head is None else head.shape[0])
    expected = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: list(tensor.shape) for name, tensor in tensors.items()}
    if expected != found:
        odd = sorted(set(expected) ^ set(found))
        odd = odd or [name for name in expected if expected[name] != found[name]]
        raise CorruptFileError(
            f"{str(path)!r} must hold a SqueezeNet 1.0 with torchvision's parameter names; got "
            f"another {odd[0]!r}. Build your model in Python and pass it as a module."
        )
    network.load_state_dict(tensors)
    return network.requires_grad_(False).eval()
