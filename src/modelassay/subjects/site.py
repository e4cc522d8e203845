"""`Site`: a frozen value that names one tensor in a model."""

from dataclasses import dataclass
from functools import total_ordering

from modelassay.core.errors import UnknownNameError, ValueRangeError

ROLES = (
    "resid_pre",
    "attn_in",
    "attn_pattern",
    "head_out",
    "attn_out",
    "resid_mid",
    "mlp_in",
    "mlp_hidden",
    "mlp_out",
    "resid_post",
)
"""The roles of a transformer block's tensors, in the order in which a block computes them."""

PORTS = ("in", "out")


@total_ordering
@dataclass(frozen=True, slots=True)
class Site:
    """One tensor in a model: a role in a layer, or an end of a module.

    =============  =================================================================
    role           tensor
    =============  =================================================================
    resid_pre      residual stream as the block receives it
    attn_in        what the attention reads (after its norm)
    attn_pattern   attention weights, ``[batch head query key]``
    head_out       input of the output projection, ``[batch token head d_head]``
    attn_out       what is added to the residual stream (after a post-norm)
    resid_mid      residual stream between attention and MLP; not in parallel blocks
    mlp_in         what the MLP reads (after its norm)
    mlp_hidden     input of the MLP's down projection
    mlp_out        what is added to the residual stream (after a post-norm)
    resid_post     residual stream as the block hands it on
    module         a module port: the first tensor that enters or leaves a module
    =============  =================================================================

    Sites sort by layer and then in the order of computation; module ports come first, by path.
    """

    role: str
    """One of `ROLES`, or "module" for a module port."""
    layer: int = -1
    """Block number from 0; -1 for module ports."""
    path: str = ""
    """Path of the module inside the model, for module ports only."""
    port: str = "out"
    """For module ports: "in" (first tensor argument) or "out" (first tensor returned)."""

    def __post_init__(self) -> None:
        if self.role == "module":
            if not self.path or self.layer != -1:
                raise ValueRangeError(
                    "A module port must have a path and no layer; "
                    f"got path={self.path!r}, layer={self.layer}. "
                    "Write it as 'path.of.module:out'."
                )
            if self.port not in PORTS:
                raise UnknownNameError("Port", self.port, PORTS)
            return
        if self.role not in ROLES:
            raise UnknownNameError("Role", self.role, ROLES)
        if self.layer < 0 or self.path or self.port != "out":
            raise ValueRangeError(
                "A role must have a layer of at least 0 and neither path nor port; "
                f"got layer={self.layer}, path={self.path!r}, port={self.port!r}. "
                f"Write it as '{self.role}.0'."
            )

    @staticmethod
    def parse(text: str) -> "Site":
        """Read a site from its printed form.

        ``"resid_post.3"`` is a role and a layer; ``"features.4.expand1x1:out"`` a module port.

        Raises:
            UnknownNameError: the role or port is unknown; near misses are suggested.
            ValueRangeError: the text has neither form.
        """
        path, colon, port = text.rpartition(":")
        if colon:
            return Site(role="module", path=path, port=port)
        role, dot, layer = text.rpartition(".")
        if not dot or not (layer.isascii() and layer.isdigit()):
            raise ValueRangeError(
                f"A site must read 'role.layer' or 'path.of.module:port'; got {text!r}. "
                f"Write for example 'resid_post.3' or '{text or 'layer1'}:out'."
            )
        return Site(role=role, layer=int(layer))

    @property
    def is_module_port(self) -> bool:
        """Whether this site is an end of a module and not a role."""
        return self.role == "module"

    def __str__(self) -> str:
        return f"{self.path}:{self.port}" if self.is_module_port else f"{self.role}.{self.layer}"

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Site):
            return NotImplemented
        return self._position() < other._position()

    def _position(self) -> tuple[int, int, str, str]:
        order = -1 if self.is_module_port else ROLES.index(self.role)
        return (self.layer, order, self.path, self.port)
