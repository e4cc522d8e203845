"""The Jacobian lens: how a change of the stream at some depth moves the stream at the end.

``J_l`` is the mean over prompts of ``1/|V| sum over t in V, t' in V with t' >= t of
d h_final,t' / d h_l,t``. V leaves out the first positions of a prompt, where attention sinks
stand, and the last one. ``h_final`` is the output of the last block, before the final norm.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modelassay.activations.corpus import TokenizedCorpus
from modelassay.core.errors import (
    CorruptFileError,
    ProvenanceError,
    ShapeError,
    TooFewTokensError,
    ValueRangeError,
)
from modelassay.core.progress import SILENT, Progress
from modelassay.core.provenance import Provenance
from modelassay.observe.lenses.lens import (
    Lens,
    check_depth,
    check_fitted,
    check_stream,
    depth_sites,
    unembedding_hash,
)
from modelassay.observe.lenses.storage import Header, read_lens, write_lens
from modelassay.subjects.subject import Subject

PROMPT_TOKENS = 128
"""Tokens that are read of each prompt (TransformerLens 4.3, `jacobian_lens.py`)."""
FIRST_POSITIONS = 16
"""Positions at the start of a prompt that are left out (likewise)."""
_HALF_LARGEST = 65504.0


@final
class JacobianLens(Lens):
    """A linear map per depth: the model's own average derivative; nothing is trained.

    Reference: TransformerLens 4.3, `tools/analysis/jacobian_lens.py`.
    """

    def __init__(
        self, *, jacobian: Float[Tensor, "depth d_model d_model"], n_prompts: int, header: Header
    ) -> None:
        if jacobian.shape[1] != jacobian.shape[2]:
            raise ShapeError(
                f"jacobian must be [depth, d_model, d_model]; got {list(jacobian.shape)}. "
                "Pass one square map for every depth but the last."
            )
        self.jacobian, self.n_prompts, self.header = jacobian, n_prompts, header

    @property
    def name(self) -> str:
        """What readers call it."""
        return "Jacobian"

    @property
    def n_layers(self) -> int:
        """Blocks of the model: one map for the stream before each."""
        return len(self.jacobian)

    def translate(
        self, resid: Float[Tensor, "*token d_model"], depth: int
    ) -> Float[Tensor, "*token d_model"]:
        """``J h``; the last depth as it is.

        Raises:
            ShapeError: the stream has another width than the lens.
            ValueRangeError: the model has no such depth.
        """
        check_stream(resid, self.jacobian.shape[1])
        check_depth(depth, self.n_layers)
        return resid if depth == self.n_layers else resid @ self.jacobian[depth].to(resid).T

    def check(self, subject: Subject) -> None:
        """Refuse a model that this lens was not fitted to."""
        check_fitted(
            subject,
            kind="Jacobian",
            n_layers=self.n_layers,
            d_model=self.jacobian.shape[1],
            head=self.header.head,
        )

    def merged(self, other: "JacobianLens") -> "JacobianLens":
        """The lens of both sets of prompts together: the mean weighted by their numbers.

        Raises:
            ProvenanceError: the other was fitted to another model.
        """
        if (self.header.head, self.jacobian.shape) != (other.header.head, other.jacobian.shape):
            raise ProvenanceError(
                "Jacobian lenses must be of one model to be merged; got heads "
                f"{self.header.head} and {other.header.head}. Fit both to the same model."
            )
        n_prompts = self.n_prompts + other.n_prompts
        total = self.jacobian * self.n_prompts + other.jacobian * other.n_prompts
        return JacobianLens(jacobian=total / n_prompts, n_prompts=n_prompts, header=self.header)

    def save(
        self, path: str | Path, *, dtype: torch.dtype = torch.float16, force: bool = False
    ) -> None:
        """Write the lens as one safetensors file.

        Args:
            path: the file.
            dtype: of the stored map; half precision rounds by 0.05 %.
            force: whether a file that is there may be replaced.

        Raises:
            OutputExistsError: there is a file already, and `force` is False.
            ValueRangeError: half precision cannot hold an entry.
            StorageError: the place cannot be written.
        """
        largest = float(self.jacobian.abs().max())
        if dtype == torch.float16 and largest > _HALF_LARGEST:
            raise ValueRangeError(
                f"float16 holds entries up to {_HALF_LARGEST:g}; got {largest:.3g}. "
                "Pass dtype=torch.float32."
            )
        tensors = {
            "J": self.jacobian.to(dtype),
            "n_prompts": torch.tensor(self.n_prompts),
            # By the block whose output is read; -1 is the stream before the first.
            "source_layers": torch.arange(-1, self.n_layers - 1),
            "d_model": torch.tensor(self.jacobian.shape[1]),
        }
        write_lens(path, self.header, tensors, force=force)

    @staticmethod
    def load(path: str | Path) -> "JacobianLens":
        """Read a lens that `save` wrote.

        Raises:
            CorruptFileError: the file is damaged, or holds no Jacobian lens.
            FileNotFoundError: there is none.
        """
        header, tensors = read_lens(path)
        if header.kind != "jacobian" or not {"J", "n_prompts"} <= set(tensors):
            raise CorruptFileError(
                f"{str(path)!r} must hold a Jacobian lens with J and n_prompts; got a "
                f"{header.kind} lens with {', '.join(sorted(tensors))}. Name another file."
            )
        return JacobianLens(
            jacobian=tensors["J"].float(), n_prompts=int(tensors["n_prompts"]), header=header
        )


def fit_jacobian_lens(
    subject: Subject,
    prompts: TokenizedCorpus | Sequence[Int[Tensor, " _"]],
    *,
    n_prompts: int = 100,
    outputs_at_once: int = 8,
    progress: Progress = SILENT,
) -> JacobianLens:
    """Average the model's Jacobian over prompts; nothing is random.

    Each prompt costs a forward pass over `outputs_at_once` copies of it and
    ``ceil(d_model / outputs_at_once)`` backward passes, each with one component of the last
    stream as its end at all positions of V.

    Args:
        subject: a verified language model.
        prompts: contexts, or token ids; the first `PROMPT_TOKENS` of each are read.
        n_prompts: how many, from the first on; prompts too short for a position of V are passed
            over. A hundred will do (TransformerLens; published lenses used up to 1000).
        outputs_at_once: components differentiated in one backward pass; changes no result.
        progress: where to report.

    Raises:
        TooFewTokensError: every prompt is too short.
        ValueRangeError: ids outside the vocabulary.
        UnsupportedModelError: the subject is no verified language model.
    """
    depth_sites(subject)
    limit = min(PROMPT_TOKENS, subject.context_tokens)
    rows = [row[:limit] for row in _rows(prompts)]
    usable = [row for row in rows if len(row) > FIRST_POSITIONS + 1][:n_prompts]
    if not usable:
        raise TooFewTokensError(
            f"A Jacobian lens needs a prompt of at least {FIRST_POSITIONS + 2} tokens; got "
            f"{len(rows)}, the longest of {max(map(len, rows), default=0)}. Add longer texts."
        )
    total = torch.zeros(subject.n_layers, subject.d_model, subject.d_model, device=subject.device)
    with progress.task("Fitting the Jacobian lens", total=len(usable), unit="prompts") as task:
        for row in usable:
            total += jacobian_of_prompt(subject, row, outputs_at_once=outputs_at_once)
            task.advance(1)
    provenance = Provenance.collect(
        seed=0,
        device=str(subject.device),
        subject=subject.name,
        subject_fingerprint=subject.fingerprint(),
        prompts=len(usable),
        corpus=prompts.corpus.source if isinstance(prompts, TokenizedCorpus) else None,
    )
    header = Header(
        kind="jacobian",
        subject=subject.name,
        head=unembedding_hash(subject),
        provenance=provenance,
    )
    return JacobianLens(jacobian=total / len(usable), n_prompts=len(usable), header=header)


def jacobian_of_prompt(
    subject: Subject, tokens: Int[Tensor, " token"], *, outputs_at_once: int = 8
) -> Float[Tensor, "depth d_model d_model"]:
    """One prompt's share: ``1/|V| sum of d h_final,t' / d h_l,t`` over pairs of V, for all depths.

    Later streams do not move earlier ones, so that pairs with t' < t add nothing.
    """
    sites = depth_sites(subject)
    width, last = subject.d_model, sites[-1]
    found = torch.zeros(subject.n_layers, width, width, device=subject.device)
    valid = slice(FIRST_POSITIONS, len(tokens) - 1)
    n_valid = len(tokens) - 1 - FIRST_POSITIONS
    copies = min(outputs_at_once, width)
    run = subject.run(tokens.expand(copies, -1), read=sites, until=last, gradients=True)
    streams = [run.activations[site] for site in sites]
    for start in range(0, width, copies):
        outputs = torch.arange(start, min(start + copies, width), device=subject.device)
        ends = torch.zeros_like(streams[-1])
        ends[torch.arange(len(outputs)), valid, outputs] = 1.0
        slopes = torch.autograd.grad(streams[-1], streams[:-1], ends, retain_graph=True)
        for depth, slope in enumerate(slopes):
            found[depth, outputs] = (slope[: len(outputs), valid].sum(1) / n_valid).to(found)
    return found


def _rows(prompts: TokenizedCorpus | Sequence[Tensor]) -> list[Tensor]:
    if not isinstance(prompts, TokenizedCorpus):
        return list(prompts)
    return [row[mask] for row, mask in zip(prompts.tokens, prompts.mask, strict=True)]
