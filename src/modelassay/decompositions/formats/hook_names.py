"""TransformerLens' hook names, by which SAELens says where a dictionary belongs."""

from modelassay.core.errors import ValueRangeError
from modelassay.subjects.site import Site

# Only tensors that are the same in both: TransformerLens' `hook_mlp_in` is the residual stream
# before the norm, for example, and not what our `mlp_in` names.
_HOOKS = {
    "resid_pre": "hook_resid_pre",
    "resid_mid": "hook_resid_mid",
    "resid_post": "hook_resid_post",
    "attn_out": "hook_attn_out",
    "mlp_out": "hook_mlp_out",
    "mlp_hidden": "mlp.hook_post",
}
_ROLES = {hook: role for role, hook in _HOOKS.items()}


def site_of_hook(name: str) -> Site:
    """The site that a hook name such as ``blocks.3.hook_resid_post`` means.

    Raises:
        ValueRangeError: if it is none of those that name the same tensor in both libraries.
    """
    blocks, _, rest = name.partition(".")
    layer, _, hook = rest.partition(".")
    if blocks != "blocks" or not (layer.isascii() and layer.isdigit()) or hook not in _ROLES:
        raise ValueRangeError(
            f"A hook name must be blocks.LAYER. and one of {', '.join(_ROLES)}; got {name!r}. "
            "Pass site= to say where in the model the dictionary belongs."
        )
    return Site(role=_ROLES[hook], layer=int(layer))


def hook_of_site(site: Site) -> str:
    """The hook name of a site.

    Raises:
        ValueRangeError: if TransformerLens has no hook at the same tensor.
    """
    if site.role not in _HOOKS:
        raise ValueRangeError(
            f"A site must have one of the roles {', '.join(_HOOKS)} to have a hook name; got "
            f"{str(site)!r}. Save the dictionary in our own format instead."
        )
    return f"blocks.{site.layer}.{_HOOKS[site.role]}"
