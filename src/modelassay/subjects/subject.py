"""`Subject`: a model under study."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from modelassay.core.errors import UnknownNameError, UnsupportedModelError, ValueRangeError
from modelassay.core.provenance import hash_tensors
from modelassay.subjects.hooks import (
    Flags,
    Stop,
    first_tensor,
    skipping,
    visiting,
)
from modelassay.subjects.inputs import check_mask, check_tokens
from modelassay.subjects.site import Site
from modelassay.subjects.structure import Structure
from modelassay.subjects.token_text import token_strings
from modelassay.subjects.visitors import Edit, Places, stop, tap


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one pass through a model gave."""

    activations: dict[Site, Tensor]
    """The sites that were read, after edits. They may share memory: do not write into them."""
    logits: Tensor | None
    """Logits ``[batch token vocab]``, or whatever tensor a general module returns; None if the
    run stopped early."""


@dataclass(frozen=True, kw_only=True)
class Downstream:
    """The rest of a model as a function of one site, on fixed tokens.

    The blocks before the site ran once and do not run again.
    """

    site: Site
    activation: Tensor
    """The site's clean value."""
    rest: Callable[..., Run]
    """`Subject.run` from the first block that must run again, on the fixed tokens."""

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
            ValueRangeError: a site to read lies in a block that does not run again.
        """
        edit = {self.site: lambda _clean: activation}
        return self.rest(edit=edit, read=read, until=until, gradients=gradients)


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
        self.unembedding_module: Any = (
            module.get_output_embeddings()  # pyright: ignore[reportCallIssue]
            if structure
            else None
        )
        self.vocab_size = self.unembedding_module.weight.shape[0] if structure else 0
        self._accepted = frozenset(inspect.signature(module.forward).parameters)
        # Looked up here and not in the module, whose own look-up by path costs as much as a hook.
        self._parts = dict(module.named_modules(remove_duplicate=False))
        self._flags = Flags.of(module)
        self._port_widths: dict[Site, int] = {}
        self._fingerprint: tuple[tuple[int, ...], str] | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters(), torch.empty(0)).device

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype."""
        return next(self.module.parameters(), torch.empty(0)).dtype

    @property
    def final_norm(self) -> nn.Module | None:
        """The norm between the last block and the unembedding, if the model has one."""
        if self.structure is None or self.structure.final_norm is None:
            return None
        return self._parts[self.structure.final_norm]

    def sites(self) -> tuple[Site, ...]:
        """All role sites in order of computation; for a general module, what its modules return.

        Module ports (``path:in`` and ``path:out``) are accepted in every model.
        """
        if self.structure is None:
            return tuple(Site("module", path=path) for path in self._parts if path)
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
            if site.path not in self._parts:
                raise UnknownNameError("Module path", site.path, filter(None, self._parts))
        elif self.structure is None:
            raise self._no_roles(str(site))
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
        tokens: Shaped[Tensor, "batch ..."],
        *,
        mask: Bool[Tensor, "batch token"] | None = None,
    ) -> Downstream:
        """The rest of the model as a function of one site, with the blocks before it run once."""
        site = self.resolve(site)
        first = self._first_block(site)
        before = [Site("resid_post", first - 1)] if first else []
        clean = self.run(tokens, mask=mask, read=[*before, site], until=site).activations
        prefix = (first, clean[before[0]]) if before else None
        rest = partial(self._run, tokens, mask=mask, prefix=prefix)
        return Downstream(site=site, activation=clean[site], rest=rest)

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
        return self.unembedding_module.weight.detach().T

    def generate(
        self,
        tokens: Int[Tensor, "batch token"],
        *,
        max_new_tokens: int,
        edit: Mapping[Site, Edit] | Callable[[Tensor], Mapping[Site, Edit]] | None = None,
        temperature: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> Int[Tensor, "batch longer"]:
        """Continue tokens under edits, which see the whole sequence at every step.

        Args:
            tokens: prompts of equal length.
            max_new_tokens: number of tokens to add.
            edit: replacements by site, or a function that gives them for the tokens so far.
            temperature: 0 takes the likeliest token.
            generator: needed when the temperature is above 0.

        Raises:
            ValueRangeError: a negative temperature, or one above 0 without a generator.
        """
        if temperature != 0 and (temperature < 0 or generator is None):
            raise ValueRangeError(
                f"temperature must be 0, or above 0 together with a generator; got {temperature} "
                f"and generator={generator}. Pass generator=torch.Generator().manual_seed(0)."
            )
        for _ in range(max_new_tokens):
            logits = self.run(tokens, edit=edit(tokens) if callable(edit) else edit).logits
            assert logits is not None
            last = logits[:, -1].float()
            if generator is None or temperature == 0:
                chosen = last.argmax(-1, keepdim=True)
            else:
                likely = (last / temperature).softmax(-1).to(generator.device)
                chosen = torch.multinomial(likely, 1, generator=generator)
            tokens = torch.cat([tokens, chosen.to(tokens.device)], dim=1)
        return tokens

    def fingerprint(self) -> str:
        """Hash of the weights, 16 hexadecimal digits; computed again only when they changed.

        A change is seen by PyTorch's own count of in-place writes, which ``.data`` evades.
        """
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
        if self.structure is not None:
            check_tokens(tokens, self.vocab_size, self.context_tokens)
        options = self._options(mask, tokens)
        tokens = tokens.to(self.device)
        edits = {self.resolve(site): change for site, change in (edit or {}).items()}
        sites = [self.resolve(site) for site in read]
        if prefix is not None:
            self._check_after([*sites, *([until] if until else [])], prefix[0])
        activations: dict[Site, Tensor] = {}
        edited: set[Site] = set()
        places = Places(self.structure, self.dtype, tokens.shape[:2])
        visitors = places.editing(edits, edited)
        if gradients:
            visitors += places.editing({site: tap(site, activations) for site in sites}, set())
        else:
            mids = {site for site in sites if site.role == "resid_mid"}
            # First, because without norms this stream is also where an edit of mlp_in begins.
            visitors = places.reading(mids, activations) + visitors
            visitors += places.reading({*sites} - mids, activations)
        if until is not None:
            visitors.append((places.port(self.resolve(until)), stop))
        output = None
        with (
            torch.set_grad_enabled(gradients),
            self._flags.evaluating(),
            self._skipping(prefix),
            visiting(self._parts, visitors),
            suppress(Stop),
        ):
            output = self.module(tokens, **options)
        missed = (set(edits) - edited) | (set(sites) - set(activations))
        if missed or (until is not None and output is not None):
            raise ValueRangeError(
                "A run must reach every site; out of reach: "
                f"{', '.join(map(str, sorted(missed))) or until}; got until={until}. "
                "Stop later, or leave these sites out."
            )
        for site, value in activations.items():
            if site.is_module_port:
                self._port_widths[site] = value.shape[1 if value.ndim == 4 else -1]
        return Run(activations=activations, logits=_logits(output))

    def _check_after(self, sites: Sequence[Site], first: int) -> None:
        for site in sites:
            # Modules outside the blocks run again in any case.
            if self._layer_of(site) is not None and self._first_block(site) < first:
                raise ValueRangeError(
                    f"Sites to read downstream must lie in block {first} or later; got {site}. "
                    "Read it with Subject.run, which computes it."
                )

    def _options(self, mask: Tensor | None, tokens: Tensor) -> dict[str, Any]:
        options: dict[str, Any] = {"use_cache": False} if "use_cache" in self._accepted else {}
        if mask is not None:
            check_mask(mask, tokens)
            if "attention_mask" in self._accepted:
                options["attention_mask"] = mask.to(self.device).long()
            elif not bool(mask.all()):
                raise ValueRangeError(
                    f"mask needs a model that takes an attention mask; got {self.name!r}. "
                    "Leave it out, and give contexts of equal length."
                )
        return options

    def _skipping(self, prefix: tuple[int, Tensor] | None) -> AbstractContextManager[None]:
        if prefix is None or self.structure is None:
            return nullcontext()
        n_skipped, resid = prefix
        blocks = [self._parts[path] for path in self.structure.blocks[:n_skipped]]
        # A copy, because a block may write into what it is handed.
        return skipping(blocks, self.structure.block_result(resid.clone()))

    def _first_block(self, site: Site) -> int:
        """The first block that must run for this site to have an effect."""
        if site.role == "resid_post":
            return site.layer + 1
        return self._layer_of(site) or 0

    def _layer_of(self, site: Site) -> int | None:
        if not site.is_module_port:
            return site.layer
        return self.structure.layer_of(site.path) if self.structure else None

    def _no_roles(self, wanted: str) -> UnsupportedModelError:
        return UnsupportedModelError(
            f"{wanted} needs a language model whose roles were verified; got {self.name!r}, which "
            "has module ports only. Write sites as 'path.of.module:out'."
        )


_WHY_ABSENT = {
    "resid_mid": "Its attention and MLP read the same residual stream (a parallel block), "
    "so there is no stream between them.",
    "mlp_in": "No single module reads the input of its MLP.",
    "mlp_hidden": "No matrix product writes the output of its MLP (a mixture of experts?).",
    "head_out": "No matrix product writes the output of its attention.",
}


def _logits(output: Any) -> Tensor | None:
    if isinstance(output, Mapping) and "logits" in output:
        return output["logits"]
    return first_tensor(output)
