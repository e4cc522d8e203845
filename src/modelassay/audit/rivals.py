"""What a decomposition is compared with: a second seed, null twins, and baselines.

- The *second seed* is fitted on the same activations with the same recipe and another seed.
- The *null twins* are the subject with its blocks' weights re-initialised or permuted, embeddings
  kept; the same recipe is fitted on their activations, on the same tokens.
- The *baselines* (random directions, PCA, frozen decoder) are audited beside the decomposition.
  Each has a second version of its own kind, for the question whether it is stable.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from modelassay.activations.harvest import Harvest, harvest
from modelassay.activations.statistics import Moments
from modelassay.core.progress import Progress
from modelassay.core.randomness import derived
from modelassay.decompositions.codes import Codes
from modelassay.decompositions.decomposition import Decomposition
from modelassay.decompositions.dictionary import Dictionary
from modelassay.decompositions.linear import PCA, RandomDictionary
from modelassay.decompositions.recipes import Recipe, TopK
from modelassay.decompositions.storage import load_decomposition
from modelassay.evidence.documents import document_of_row
from modelassay.fitting.fit import fit
from modelassay.subjects.null_twins import null_twin
from modelassay.subjects.subject import Subject

TWINS = ("reinitialised", "permuted")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """A decomposition and a second one made in the same way from other randomness."""

    first: Decomposition
    second: Decomposition


@dataclass(frozen=True, kw_only=True, slots=True)
class Rivals:
    """Everything that the audited decomposition is compared with."""

    second_seed: Decomposition
    twin_codes: dict[str, Codes]
    """Twin -> held-out codes of a dictionary fitted on that twin's activations."""
    baselines: dict[str, Pair]


def recipe_like(decomposition: Decomposition, heldout: Codes) -> Recipe:
    """The recipe that comes closest to how a decomposition codes: its kind, width and sparsity.

    A decomposition that no recipe describes (neurons, a dictionary with thresholds) is matched by
    a TopK of the same width with k = its mean L0, at most a quarter of the width.
    """
    if isinstance(decomposition, Dictionary) and decomposition.recipe is not None:
        return decomposition.recipe
    mean_l0 = round(float(heldout.l0().mean()))
    return TopK(width=decomposition.width, k=max(1, min(mean_l0, decomposition.width // 4)))


def frozen(recipe: Recipe) -> Recipe:
    """The same recipe with a decoder that stays at its random start (Korznikov et al. 2026)."""
    return replace(recipe, frozen_decoder=True)


def fit_rivals(
    subject: Subject,
    activations: Harvest,
    recipe: Recipe,
    *,
    seed: int,
    tokens: int | None = None,
    folder: Path | None = None,
    progress: Progress,
) -> Rivals:
    """Fit the second seed, the twins' dictionaries and the baselines.

    Args:
        recipe: what the audited decomposition was made with.
        seed: the audited decomposition's seed; the second one is `seed + 1`.
        tokens: training tokens of every fit (None: the trainer's default).
        folder: where finished fits are kept, so that an interrupted audit can go on.
    """
    site = activations.sites[0]
    keeper = _Keeper(folder)
    second, frozen_one, frozen_two = keeper.kept(
        ("second_seed", "frozen_decoder", "frozen_decoder_second"),
        lambda checkpoint: fit(
            [recipe, frozen(recipe), frozen(recipe)], activations, site=site, tokens=tokens,
            seed=[seed + 1, seed, seed + 1], checkpoint=checkpoint, resume=checkpoint is not None,
            progress=progress,
        ),
    )  # fmt: skip
    twin_codes: dict[str, Codes] = {}
    for kind in TWINS:
        twin = null_twin(subject, kind, keep_embeddings=True, generator=derived(seed, "twin", kind))
        twin_harvest = harvest(
            twin, activations.contexts, site, progress=progress,
            directory=None if folder is None else str(folder / f"harvest_{kind}"),
        )  # fmt: skip
        (dictionary,) = keeper.kept(
            (f"twin_{kind}",),
            lambda checkpoint, source=twin_harvest: fit(
                [recipe], source, site=site, tokens=tokens, seed=[seed], checkpoint=checkpoint,
                resume=checkpoint is not None, progress=progress,
            ),
        )  # fmt: skip
        twin_codes[kind] = dictionary.encode(twin_harvest.select("heldout").activations(site))
    frozen_pair = Pair(first=frozen_one, second=frozen_two)
    linear = _linear_baselines(activations, recipe, seed)
    return Rivals(
        second_seed=second,
        twin_codes=twin_codes,
        baselines=linear | {"frozen decoder": frozen_pair},
    )


def _linear_baselines(activations: Harvest, recipe: Recipe, seed: int) -> dict[str, Pair]:
    """Random directions, and PCA; its second version sees half of the fit documents.

    Both keep as many values per token as the audited decomposition does: at full rank PCA
    reconstructs everything, which compares with nothing.
    """
    site = activations.sites[0]
    fit_part = activations.select("fit")
    moments = fit_part.moments(site)
    k = _values_per_token(recipe)
    random = [
        RandomDictionary(
            recipe.width, fit_part.width(site), k, mean=moments.mean.float(), site=site,
            generator=derived(seed, "random dictionary", version),
        )
        for version in (0, 1)
    ]  # fmt: skip
    documents = document_of_row(fit_part)
    order = torch.randperm(int(documents.max()) + 1, generator=derived(seed, "half"))
    in_half = (order < (len(order) + 1) // 2)[documents]
    half = Moments.of(fit_part.activations(site)[in_half])
    return {
        "random": Pair(first=random[0], second=random[1]),
        "pca": Pair(
            first=PCA.from_moments(moments, min(k, fit_part.width(site)), site=site),
            second=PCA.from_moments(half, min(k, fit_part.width(site)), site=site),
        ),
    }


def _values_per_token(recipe: Recipe) -> int:
    """How many latents a recipe keeps active; 1/32 of the width where it does not say (ours)."""
    said = getattr(recipe, "k", None) or getattr(recipe, "target_l0", None)
    return max(1, recipe.width // 32 if said is None else round(said))


class _Keeper:
    """Keeps finished fits in a folder and gives them back when the audit goes on."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def kept(
        self, names: tuple[str, ...], make: Callable[[Path | None], list[Dictionary]]
    ) -> list[Decomposition]:
        """The decompositions of that name from the folder, or newly made and put there."""
        if self._folder is None:
            return list(make(None))
        places = [self._folder / name for name in names]
        if not all((place / "config.json").is_file() for place in places):
            made = make(self._folder / f"checkpoint_{names[0]}")
            for place, decomposition in zip(places, made, strict=True):
                decomposition.save(place)
        return [load_decomposition(place) for place in places]
