"""`Subject`: a model under study."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from modelassay.core.errors import (
    ShapeError,
    UnknownNameError,
    UnsupportedModelError,
    ValueRangeError,
)
from modelassay.core.provenance import hash_tensors
from modelassay.subjects.hooks import (
    Port,
    Stop,
    Visitor,
    evaluating,
    first_tensor,
    skipping,
    visiting,
)
from modelassay.subjects.site import Site
from modelassay.subjects.structure import Structure
from modelassay.subjects.token_text import token_strings

Edit = Callable[[Tensor], Tensor]
"""Maps an activation to its replacement, of the same shape and dtype."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one pass through a model gave."""

    activations: dict[Site, Tensor]
    """The sites that were read, after edits."""
    logits: Tensor | None
    """Logits ``[batch token vocab]``, or whatever tensor a general module returns; None if the
    run stopped early."""


@dataclass(frozen=True, kw_only=True)
class Downstream:
    """The rest of a model as a function of one site, on fixed tokens.

    The blocks before the site ran once and do not run again.
    """

    subject: "Subject"
    site: Site
    tokens: Tensor
    mask: Tensor | None
    activation: Tensor
    """The site's clean value."""
    prefix: tuple[int, Tensor] | None
    """Number of blocks that need not run, and the residual stream that they hand on."""

    def __call__(
        self,
        activation: Tensor,
        *,
        read: Sequence[Site] = (),
        until: Site | None = None,
        gradients: bool = False,
    ) -> Run:
        """Run the rest of the model with another value at the site.

        Args:
            activation: the site's new value, in the shape of the clean one.
            read: sites at or after this one.
            until: stop after this site.
            gradients: record a graph from `activation` onwards.

        Raises:
            ShapeError: the activation has another shape.
            ValueRangeError: a site to read lies before this one.
        """
        for site in (*read, *([until] if until else [])):
            if site != self.site and self.subject._first_block(site) < self.subject._first_block(
                self.site
            ):
                raise ValueRangeError(
                    f"Sites to read must lie at or after {self.site}; got {site}. "
                    "Read it with Subject.run, which computes it."
                )
        return self.subject._run(
            self.tokens,
            mask=self.mask,
            read=read,
            edit={self.site: lambda _clean: activation},
            until=until,
            gradients=gradients,
            prefix=self.prefix,
        )


@final
class Subject:
    """A model under study: its sites, read and edited by hooks that never outlive a call.

    Make one with `load_subject`, which resolves the roles and verifies them. The module itself
    is left as it was found: `run` switches off dropout, and eager attention on, for the length
    of a call, and restores both.
    """

    def __init__(
        self,
        *,
        name: str,
        module: nn.Module,
        tokenizer: Any | None,
        structure: Structure | None,
        context_tokens: int,
    ) -> None:
        self.name = name
        self.module = module
        self.tokenizer = tokenizer
        self.structure = structure
        self.context_tokens = context_tokens
        self.n_layers = len(structure.blocks) if structure else 0
        self.n_heads = structure.n_heads if structure else 0
        self.d_model = structure.d_model if structure else 0
        self.vocab_size = self._unembedding_module().weight.shape[0] if structure else 0
        self._accepted = frozenset(inspect.signature(module.forward).parameters)
        self._port_widths: dict[Site, int] = {}
        self._fingerprint: tuple[tuple[int, ...], str] | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype."""
        return next(self.module.parameters()).dtype

    @property
    def final_norm(self) -> nn.Module | None:
        """The norm between the last block and the unembedding, if the model has one."""
        if self.structure is None or self.structure.final_norm is None:
            return None
        return self.module.get_submodule(self.structure.final_norm)

    def sites(self) -> tuple[Site, ...]:
        """All role sites in order of computation; for a general module, what its modules return.

        Module ports (``path:in`` and ``path:out``) are accepted in every model.
        """
        if self.structure is None:
            return tuple(Site("module", path=p) for p, _ in self.module.named_modules() if p)
        return tuple(
            Site(role, layer) for layer in range(self.n_layers) for role in self.structure.ports
        )

    def resolve(self, site: Site | str) -> Site:
        """The site itself, once it is known to exist in this model.

        Raises:
            UnknownNameError: no such site; near misses are suggested.
            UnsupportedModelError: the model's blocks do not have this role.
        """
        site = Site.parse(site) if isinstance(site, str) else site
        if site.is_module_port:
            paths = [path for path, _ in self.module.named_modules() if path]
            if site.path not in paths:
                raise UnknownNameError("Module path", site.path, paths)
        elif self.structure is None:
            raise UnsupportedModelError(
                f"Roles must have been verified for a model; got {site} for {self.name!r}, which is "
                "read by module ports. Write 'path.of.module:out'."
            )
        elif site.role not in self.structure.ports:
            raise UnsupportedModelError(
                f"A role must exist in the model's blocks; got {site} for {self.name!r}. "
                f"{_WHY_ABSENT.get(site.role, '')} It has: {', '.join(self.structure.ports)}."
            )
        elif site.layer >= self.n_layers:
            raise UnknownNameError("Site", str(site), [str(known) for known in self.sites()])
        return site

    def width(self, site: Site | str) -> int:
        """Size of a site's feature axis.

        The last axis; for attention patterns the number of heads; for images
        ``[batch channel height width]`` the number of channels.

        Raises:
            ValueRangeError: the width of a general module's port, before it was first read.
        """
        site = self.resolve(site)
        if not site.is_module_port and self.structure is not None:
            return self.structure.widths[site.role]
        if site not in self._port_widths and self.structure is not None:
            self.run(torch.zeros(1, 2, dtype=torch.long), read=[site])
        if site not in self._port_widths:
            raise ValueRangeError(
                f"The width of a module port is known after it was first read; got {site}. "
                "Call run(inputs, read=[site]) once."
            )
        return self._port_widths[site]

    def run(
        self,
        tokens: Shaped[Tensor, "batch ..."],
        *,
        mask: Bool[Tensor, "batch token"] | None = None,
        read: Sequence[Site] = (),
        edit: Mapping[Site, Edit] | None = None,
        until: Site | None = None,
        gradients: bool = False,
    ) -> Run:
        """Run the model, reading and editing sites on the way.

        An edit gets a copy of the activation and returns its replacement; reads see edits.

        Args:
            tokens: token ids ``[batch token]``, padded on the right; for a general module its
                input, of any shape.
            mask: True for tokens, False for padding.
            read: sites whose activations are wanted.
            edit: replacements by site.
            until: stop after this site, without computing logits.
            gradients: record a graph, and return activations that lie in it.

        Raises:
            ShapeError: tokens or an edit's result have the wrong shape.
            ValueRangeError: tokens, padding, or a site that the run does not reach.
            UnknownNameError: an unknown site.
        """
        return self._run(tokens, mask=mask, read=read, edit=edit, until=until, gradients=gradients)

    def downstream(
        self,
        site: Site,
        tokens: Int[Tensor, "batch token"],
        *,
        mask: Bool[Tensor, "batch token"] | None = None,
    ) -> Downstream:
        """The rest of the model as a function of one site, with the blocks before it run once."""
        site = self.resolve(site)
        first = self._first_block(site)
        before = [Site("resid_post", first - 1)] if first else []
        clean = self.run(tokens, mask=mask, read=[*before, site], until=site).activations
        return Downstream(
            subject=self,
            site=site,
            tokens=tokens,
            mask=mask,
            activation=clean[site],
            prefix=(first, clean[before[0]]) if before else None,
        )

    def logits_of(self, resid: Float[Tensor, "*token d_model"]) -> Float[Tensor, "*token vocab"]:
        """Logits of a residual stream after the last block: final norm, unembedding, soft-cap.

        The model's own code computes them: it runs with all blocks left out.
        """
        if self.structure is None:
            raise self._no_roles("logits_of")
        flat = resid.reshape(-1, 1, self.d_model)
        tokens = torch.zeros(flat.shape[:2], dtype=torch.long, device=self.device)
        run = self._run(tokens, gradients=torch.is_grad_enabled(), prefix=(self.n_layers, flat))
        assert run.logits is not None
        return run.logits.reshape(*resid.shape[:-1], -1)

    def unembedding(self) -> Float[Tensor, "d_model vocab"]:
        """The unembedding's weight, without the final norm and without any logit scale."""
        if self.structure is None:
            raise self._no_roles("unembedding")
        return self._unembedding_module().weight.detach().T

    def generate(
        self,
        tokens: Int[Tensor, "batch token"],
        *,
        max_new_tokens: int,
        edit: Mapping[Site, Edit] | None = None,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "batch longer"]:
        """Continue tokens under edits, which see the whole sequence at every step.

        Args:
            tokens: prompts of equal length.
            max_new_tokens: number of tokens to add.
            edit: replacements by site.
            temperature: 0 takes the likeliest token.
            generator: needed when the temperature is above 0.

        Raises:
            ValueRangeError: a negative temperature, or one above 0 without a generator.
        """
        if temperature < 0 or (temperature > 0 and generator is None):
            raise ValueRangeError(
                f"temperature must be 0, or above 0 together with a generator; got {temperature} "
                f"and generator={generator}. Pass generator=torch.Generator().manual_seed(0)."
            )
        for _ in range(max_new_tokens):
            logits = self.run(tokens, edit=edit).logits
            assert logits is not None
            last = logits[:, -1].float()
            if temperature == 0:
                chosen = last.argmax(-1, keepdim=True)
            else:
                chosen = torch.multinomial(
                    (last / temperature).softmax(-1).to(generator.device), 1, generator=generator
                )
            tokens = torch.cat([tokens, chosen.to(tokens.device)], dim=1)
        return tokens

    def fingerprint(self) -> str:
        """Hash of the weights, 16 hexadecimal digits; computed again only when they changed."""
        state = self.module.state_dict(keep_vars=True)
        versions = tuple(value for t in state.values() for value in (t.data_ptr(), t._version))
        if self._fingerprint is None or self._fingerprint[0] != versions:
            self._fingerprint = (versions, hash_tensors(state))
        return self._fingerprint[1]

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        """The text of single tokens; bytes that are no whole character are escaped."""
        return token_strings(self.tokenizer, ids)

    def _run(
        self,
        tokens: Tensor,
        *,
        mask: Tensor | None = None,
        read: Sequence[Site] = (),
        edit: Mapping[Site, Edit] | None = None,
        until: Site | None = None,
        gradients: bool = False,
        prefix: tuple[int, Tensor] | None = None,
    ) -> Run:
        tokens = self._checked(tokens, mask)
        lead = tuple(tokens.shape[:2])
        activations: dict[Site, Tensor] = {}
        pending = {self.resolve(site) for site in edit or {}}
        visitors: list[tuple[Port, Visitor]] = []
        # Changes of resid_mid add to attn_out, whose own edit comes first.
        for site in sorted(edit or {}, key=lambda site: site.role == "resid_mid"):
            visitors += self._edit_visitors(site, (edit or {})[site], lead, pending)
        for site in dict.fromkeys(read):
            port = self._port(self.resolve(site))
            visitors.append((port, _shaped(port, _reader(site, activations, gradients), lead)))
        if until is not None:
            visitors.append((self._port(self.resolve(until)), _stop))
        options: dict[str, Any] = {"use_cache": False} if "use_cache" in self._accepted else {}
        if mask is not None:
            options["attention_mask"] = mask.to(self.device).long()
        output = None
        with ExitStack() as stack:
            stack.enter_context(torch.set_grad_enabled(gradients))
            stack.enter_context(evaluating(self.module))
            if prefix is not None and self.structure is not None:
                skipped = [self.module.get_submodule(p) for p in self.structure.blocks[: prefix[0]]]
                # A copy, because a block may write into what it is handed.
                result = self.structure.block_result(prefix[1].clone())
                stack.enter_context(skipping(skipped, result))
            stack.enter_context(visiting(self.module, visitors))
            try:
                output = self.module(tokens, **options)
            except Stop:
                pass
        missed = sorted({*pending, *(set(read) - set(activations))})
        if until is not None and output is not None:
            missed.append(until)
        if missed:
            raise ValueRangeError(
                f"A run must reach every site; got {', '.join(map(str, missed))} out of reach, "
                f"with until={until}. Stop later, or leave these sites out."
            )
        for site in activations:
            if site.is_module_port:
                value = activations[site]
                self._port_widths[site] = value.shape[1 if value.ndim == 4 else -1]
        return Run(activations=activations, logits=_logits(output))

    def _edit_visitors(
        self, site: Site, change: Edit, lead: tuple[int, ...], pending: set[Site]
    ) -> list[tuple[Port, Visitor]]:
        edit = _editor(site, change, pending)
        if site.role == "attn_pattern":
            # The attention module returns its weights after using them: edit at the softmax.
            return [(replace(self._port(site), end="softmax"), edit)]
        if site.role != "resid_mid":
            return [(port := self._port(site), _shaped(port, edit, lead))]
        # No module sees the stream where it is both read and carried on, so the change is added
        # to the attention's output. An edit that changes nothing adds zero, exactly.
        before: list[Tensor] = []

        def remember(resid_pre: Tensor) -> Tensor:
            before.append(resid_pre)
            return resid_pre

        def add_change(attn_out: Tensor) -> Tensor:
            resid_mid = before[-1] + attn_out
            return attn_out + (edit(resid_mid) - resid_mid)

        port = self._port(Site("attn_out", site.layer))
        return [
            (self._port(Site("resid_pre", site.layer)), remember),
            (port, _shaped(port, add_change, lead)),
        ]

    def _port(self, site: Site) -> Port:
        if site.is_module_port:
            return Port(site.path, "in" if site.port == "in" else "out")
        assert self.structure is not None
        return self.structure.port(site.role, site.layer)

    def _first_block(self, site: Site) -> int:
        """The first block that must run for this site to have an effect."""
        if self.structure is None:
            return 0
        if site.is_module_port:
            return self.structure.layer_of(site.path) or 0
        return site.layer + 1 if site.role == "resid_post" else site.layer

    def _unembedding_module(self) -> Any:
        return self.module.get_output_embeddings()  # pyright: ignore[reportCallIssue]

    def _no_roles(self, method: str) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"{method} needs a model whose roles were verified; got {self.name!r}, which is read "
            "by module ports. Load a causal language model."
        )

    def _checked(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        if self.structure is not None:
            if tokens.ndim != 2 or tokens.is_floating_point() or tokens.numel() == 0:
                raise ShapeError(
                    "tokens must be ids [batch token], at least one; got "
                    f"{list(tokens.shape)} of {tokens.dtype}. Tokenize the text first."
                )
            if tokens.shape[1] > self.context_tokens:
                raise ValueRangeError(
                    f"A context must have at most {self.context_tokens} tokens; got "
                    f"{tokens.shape[1]}. Cut it into shorter contexts."
                )
            low, high = int(tokens.min()), int(tokens.max())
            if low < 0 or high >= self.vocab_size:
                raise ValueRangeError(
                    f"Token ids must be from 0 to {self.vocab_size - 1}; got {low} to {high}. "
                    "Use this model's own tokenizer."
                )
        if mask is not None:
            if mask.shape != tokens.shape[:2] or "attention_mask" not in self._accepted:
                raise ShapeError(
                    "mask must be [batch token], for a model that takes an attention mask; got "
                    f"{list(mask.shape)} for {list(tokens.shape)} and {type(self.module).__name__}. "
                    "Leave it out, or pad."
                )
            if bool((mask[:, 1:] & ~mask[:, :-1]).any()) or not bool(mask[:, 0].all()):
                raise ValueRangeError(
                    "mask must be True for a start of every row and False after it; got padding "
                    "elsewhere. Pad on the right."
                )
        return tokens.to(self.device)


_WHY_ABSENT = {
    "resid_mid": "Its attention and MLP read the same residual stream (a parallel block), "
    "so there is no stream between them.",
    "mlp_in": "No single module reads the input of its MLP.",
    "mlp_hidden": "No matrix product writes the output of its MLP (a mixture of experts?).",
    "head_out": "No matrix product writes the output of its attention.",
}


def _editor(site: Site, change: Edit, pending: set[Site]) -> Visitor:
    edited = False

    def visit(value: Tensor) -> Tensor:
        nonlocal edited
        if edited:
            raise _runs_twice(site)
        edited = True
        pending.discard(site)
        # The edit gets a copy: one that writes in place would reach into earlier reads.
        changed = change(value.clone())
        if changed.shape != value.shape or changed.dtype != value.dtype:
            raise ShapeError(
                f"An edit of {site} must return {list(value.shape)} of {value.dtype}; got "
                f"{list(changed.shape)} of {changed.dtype}. Return a tensor like its argument."
            )
        return changed

    return visit


def _reader(site: Site, activations: dict[Site, Tensor], gradients: bool) -> Visitor:
    def visit(value: Tensor) -> Tensor:
        if site in activations:
            raise _runs_twice(site)
        if not gradients:
            # A copy, because a later module may write in place (as inplace ReLUs do).
            activations[site] = value.clone()
            return value
        if value.is_floating_point() and not value.requires_grad:
            value = value.detach().requires_grad_()
        activations[site] = value
        return value.clone()

    return visit


def _runs_twice(site: Site) -> ValueRangeError:
    return ValueRangeError(
        f"A site must name one tensor; got {site}, whose module runs more than once in a pass. "
        "Name a module around it."
    )


def _shaped(port: Port, visit: Visitor, lead: tuple[int, ...]) -> Visitor:
    """A visitor of a tensor that the model keeps flattened, or that holds several heads."""
    if port.trailing is None:
        return visit
    shape = (*lead, *port.trailing)

    def visit_shaped(value: Tensor) -> Tensor:
        if value.shape == shape:
            return visit(value)
        return visit(value.reshape(shape)).reshape(value.shape)

    return visit_shaped


def _stop(_value: Tensor) -> Tensor:
    raise Stop


def _logits(output: Any) -> Tensor | None:
    if isinstance(output, Mapping) and "logits" in output:
        return output["logits"]
    return first_tensor(output)
