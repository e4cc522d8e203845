"""Which of a model's features are the model's own, and which are only features of its activations?

    import modelassay as ma

    subject = ma.load_subject("bundled")
    harvest = ma.harvest(subject, ma.bundled_corpus(), sites="resid_post.2", tokens=2_000_000)
    dictionary = ma.fit(ma.TopK(width=4096, k=32), harvest)
    audit = ma.audit(subject, dictionary, harvest)
    audit.save("out/")
    ma.report(audit).write("out/report.html")

Names are imported on first use, so that `import modelassay` does not load torch.
"""

import importlib
import importlib.metadata
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelassay.activations.corpus import Corpus as Corpus
    from modelassay.activations.corpus import corpus_from_texts as corpus_from_texts
    from modelassay.activations.corpus import read_texts as read_texts
    from modelassay.activations.harvest import Harvest as Harvest
    from modelassay.activations.harvest import harvest as harvest
    from modelassay.activations.harvest import open_harvest as open_harvest
    from modelassay.activations.stdlib import stdlib_corpus
    from modelassay.audit.assay import audit as audit
    from modelassay.audit.result import Audit as Audit
    from modelassay.audit.result import load_audit as load_audit
    from modelassay.audit.settings import AuditSettings as AuditSettings
    from modelassay.core.errors import ModelassayError as ModelassayError
    from modelassay.decompositions.codes import Codes as Codes
    from modelassay.decompositions.cross_layer import (
        CrossLayerTranscoder as CrossLayerTranscoder,
    )
    from modelassay.decompositions.decomposition import Decomposition as Decomposition
    from modelassay.decompositions.dictionary import Dictionary as Dictionary
    from modelassay.decompositions.formats.locating import list_dictionaries as list_dictionaries
    from modelassay.decompositions.formats.registry import read_cross_layer as read_cross_layer
    from modelassay.decompositions.formats.registry import read_dictionary as read_dictionary
    from modelassay.decompositions.formats.registry import write_dictionary as write_dictionary
    from modelassay.decompositions.formats.saelens import read_saelens as read_saelens
    from modelassay.decompositions.formats.saelens import write_saelens as write_saelens
    from modelassay.decompositions.formats.temporal import read_temporal as read_temporal
    from modelassay.decompositions.inference_time import Pursuit as Pursuit
    from modelassay.decompositions.linear import PCA as PCA
    from modelassay.decompositions.linear import Neurons as Neurons
    from modelassay.decompositions.linear import RandomDictionary as RandomDictionary
    from modelassay.decompositions.local_interaction import (
        LocalInteractionBasis as LocalInteractionBasis,
    )
    from modelassay.decompositions.recipe_temporal import Temporal as Temporal
    from modelassay.decompositions.recipes import AbsTopK as AbsTopK
    from modelassay.decompositions.recipes import AnnealedL1 as AnnealedL1
    from modelassay.decompositions.recipes import Archetypal as Archetypal
    from modelassay.decompositions.recipes import BatchTopK as BatchTopK
    from modelassay.decompositions.recipes import Gated as Gated
    from modelassay.decompositions.recipes import GroupMax as GroupMax
    from modelassay.decompositions.recipes import JumpReLU as JumpReLU
    from modelassay.decompositions.recipes import MatchingPursuit as MatchingPursuit
    from modelassay.decompositions.recipes import Matryoshka as Matryoshka
    from modelassay.decompositions.recipes import (
        OrthogonalMatchingPursuit as OrthogonalMatchingPursuit,
    )
    from modelassay.decompositions.recipes import ReLUL1 as ReLUL1
    from modelassay.decompositions.recipes import TopK as TopK
    from modelassay.decompositions.storage import load_decomposition as load_decomposition
    from modelassay.decompositions.temporal import TemporalDictionary as TemporalDictionary
    from modelassay.decompositions.temporal_storage import load_temporal as load_temporal
    from modelassay.decompositions.transcoder import SkipTranscoder as SkipTranscoder
    from modelassay.evidence.evidence import Evidence as Evidence
    from modelassay.fitting.architectures import register_architecture as register_architecture
    from modelassay.fitting.conformance import check_architecture as check_architecture
    from modelassay.fitting.fit import fit as fit
    from modelassay.fitting.local_interaction import (
        local_interaction_basis as local_interaction_basis,
    )
    from modelassay.fitting.options import TrainingOptions as TrainingOptions
    from modelassay.fitting.temporal import fit_temporal as fit_temporal
    from modelassay.report.league import league_report as league_report
    from modelassay.report.report import report as report
    from modelassay.subjects.load import load_subject as load_subject
    from modelassay.subjects.null_twins import null_twin as null_twin
    from modelassay.subjects.site import Site as Site
    from modelassay.subjects.subject import Subject as Subject
    from modelassay.testbeds.league import load_league as load_league
    from modelassay.testbeds.league_run import LeagueConfig as LeagueConfig
    from modelassay.testbeds.league_run import run_league as run_league
    from modelassay.testbeds.planted.arms import planted_arms as planted_arms
    from modelassay.testbeds.testbed import Testbed as Testbed

    bundled_corpus = stdlib_corpus

PUBLIC = {
    "AbsTopK": "modelassay.decompositions.recipes:AbsTopK",
    "AnnealedL1": "modelassay.decompositions.recipes:AnnealedL1",
    "Archetypal": "modelassay.decompositions.recipes:Archetypal",
    "Audit": "modelassay.audit.result:Audit",
    "AuditSettings": "modelassay.audit.settings:AuditSettings",
    "BatchTopK": "modelassay.decompositions.recipes:BatchTopK",
    "Codes": "modelassay.decompositions.codes:Codes",
    "Corpus": "modelassay.activations.corpus:Corpus",
    "CrossLayerTranscoder": "modelassay.decompositions.cross_layer:CrossLayerTranscoder",
    "Decomposition": "modelassay.decompositions.decomposition:Decomposition",
    "Dictionary": "modelassay.decompositions.dictionary:Dictionary",
    "Evidence": "modelassay.evidence.evidence:Evidence",
    "Gated": "modelassay.decompositions.recipes:Gated",
    "GroupMax": "modelassay.decompositions.recipes:GroupMax",
    "Harvest": "modelassay.activations.harvest:Harvest",
    "JumpReLU": "modelassay.decompositions.recipes:JumpReLU",
    "LeagueConfig": "modelassay.testbeds.league_run:LeagueConfig",
    "LocalInteractionBasis": "modelassay.decompositions.local_interaction:LocalInteractionBasis",
    "MatchingPursuit": "modelassay.decompositions.recipes:MatchingPursuit",
    "Matryoshka": "modelassay.decompositions.recipes:Matryoshka",
    "ModelassayError": "modelassay.core.errors:ModelassayError",
    "Neurons": "modelassay.decompositions.linear:Neurons",
    "OrthogonalMatchingPursuit": "modelassay.decompositions.recipes:OrthogonalMatchingPursuit",
    "PCA": "modelassay.decompositions.linear:PCA",
    "Pursuit": "modelassay.decompositions.inference_time:Pursuit",
    "RandomDictionary": "modelassay.decompositions.linear:RandomDictionary",
    "ReLUL1": "modelassay.decompositions.recipes:ReLUL1",
    "Site": "modelassay.subjects.site:Site",
    "SkipTranscoder": "modelassay.decompositions.transcoder:SkipTranscoder",
    "Subject": "modelassay.subjects.subject:Subject",
    "Temporal": "modelassay.decompositions.recipe_temporal:Temporal",
    "TemporalDictionary": "modelassay.decompositions.temporal:TemporalDictionary",
    "Testbed": "modelassay.testbeds.testbed:Testbed",
    "TopK": "modelassay.decompositions.recipes:TopK",
    "TrainingOptions": "modelassay.fitting.options:TrainingOptions",
    "audit": "modelassay.audit.assay:audit",
    "bundled_corpus": "modelassay.activations.stdlib:stdlib_corpus",
    "check_architecture": "modelassay.fitting.conformance:check_architecture",
    "corpus_from_texts": "modelassay.activations.corpus:corpus_from_texts",
    "fit": "modelassay.fitting.fit:fit",
    "fit_temporal": "modelassay.fitting.temporal:fit_temporal",
    "harvest": "modelassay.activations.harvest:harvest",
    "league_report": "modelassay.report.league:league_report",
    "list_dictionaries": "modelassay.decompositions.formats.locating:list_dictionaries",
    "load_audit": "modelassay.audit.result:load_audit",
    "load_decomposition": "modelassay.decompositions.storage:load_decomposition",
    "load_league": "modelassay.testbeds.league:load_league",
    "load_subject": "modelassay.subjects.load:load_subject",
    "load_temporal": "modelassay.decompositions.temporal_storage:load_temporal",
    "local_interaction_basis": "modelassay.fitting.local_interaction:local_interaction_basis",
    "null_twin": "modelassay.subjects.null_twins:null_twin",
    "open_harvest": "modelassay.activations.harvest:open_harvest",
    "planted_arms": "modelassay.testbeds.planted.arms:planted_arms",
    "read_cross_layer": "modelassay.decompositions.formats.registry:read_cross_layer",
    "read_dictionary": "modelassay.decompositions.formats.registry:read_dictionary",
    "read_saelens": "modelassay.decompositions.formats.saelens:read_saelens",
    "read_temporal": "modelassay.decompositions.formats.temporal:read_temporal",
    "read_texts": "modelassay.activations.corpus:read_texts",
    "register_architecture": "modelassay.fitting.architectures:register_architecture",
    "report": "modelassay.report.report:report",
    "run_league": "modelassay.testbeds.league_run:run_league",
    "write_dictionary": "modelassay.decompositions.formats.registry:write_dictionary",
    "write_saelens": "modelassay.decompositions.formats.saelens:write_saelens",
}
"""Public name -> where it is defined; the imports above say the same to type checkers."""


class _Front(ModuleType):
    """Keeps `modelassay.audit` and `modelassay.report` the functions.

    Importing a subpackage binds its name in its parent, so that `import modelassay.report` (or
    any import from it) would put the package in the function's place. What lies in the packages
    is imported with `from modelassay.audit import …`, which does not look at this binding.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in PUBLIC and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Front


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("modelassay")
    if name not in PUBLIC:
        raise AttributeError(f"module 'modelassay' has no attribute {name!r}")
    module, _, attribute = PUBLIC[name].partition(":")
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC, "__version__"])
