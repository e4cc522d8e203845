"""`probe_report`: a probe with every control that its data allow."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from modelassay.core.errors import TooFewTokensError, ValueRangeError
from modelassay.core.randomness import derived
from modelassay.observe.probes import controls
from modelassay.observe.probes.causal import CausalTest
from modelassay.observe.probes.data import ProbeData, Split
from modelassay.observe.probes.description_length import OnlineCode, online_code
from modelassay.observe.probes.erasure import fit_eraser
from modelassay.observe.probes.logistic import Logistic
from modelassay.observe.probes.probe import Probe, ProbeMethod
from modelassay.observe.probes.report import Baseline, ProbeReport
from modelassay.observe.probes.scores import Measured, Scores, group_weights, measure, scores_of

_MEANINGS = {
    "majority": "the commonest class of the training items",
    "shuffled labels": "the method on training labels in random order",
    "type lookup": "the commonest class of the item's own type (token) in training",
    "bag of tokens": "a logistic probe on counts of the tokens read so far",
    "embedding": "the method on the stream that enters the first block",
    "null twin": "the method at this site of the model with its weights drawn anew",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """What to measure beside the accuracy."""

    description_length: bool = True
    """Online codes: of the labels, of a control task, and of the null twin where it is given."""
    erasure: bool = True
    test_share: float = 0.3
    seed: int = 0


def probe_report(
    method: ProbeMethod,
    split: Split,
    *,
    subject: str,
    site: str,
    concept: str,
    elsewhere: Mapping[str, Split] | None = None,
    causal: CausalTest | None = None,
    probe: Probe | None = None,
    study: Study | None = None,
    notes: tuple[str, ...] = (),
) -> ProbeReport:
    """Fit a probe, score it on unseen groups, and run every control that the data allow.

    A control that the data do not allow (no types that recur, no contexts) is named in `missing`
    and not passed over in silence.

    Args:
        elsewhere: the same items read elsewhere: "embedding", "null twin", or others by name.
        causal: the causal test of the probe's direction, if it was made.
        probe: the fitted probe, if it is at hand; else it is fitted here.
        notes: what else could not be measured, for `missing`.

    Raises:
        ValueRangeError: if there is one class only, or the fit did not converge.
    """
    study = study or Study()
    probe = probe or method.fit(split.train, derived(study.seed, "probe"))
    runner = _Controls(method=method, split=split, study=study)
    likely = probe.probabilities(split.test.activations)
    baselines, missing = runner.baselines(likely, elsewhere or {})
    selectivity = runner.selectivity(likely, missing)
    codes = runner.codes(elsewhere or {}, missing) if study.description_length else {}
    return ProbeReport(
        subject=subject,
        site=site,
        method=method.name,
        concept=concept,
        classes=probe.classes,
        n_train=len(split.train),
        n_test=len(split.test),
        n_train_groups=len(split.train.named_groups),
        n_test_groups=len(split.test.named_groups),
        balance=split.test.balance,
        scores=probe.score(split.test, seed=study.seed),
        baselines=baselines,
        selectivity=selectivity,
        codes=codes,
        erased=runner.erased() if study.erasure else None,
        causal=causal,
        direction=None if probe.head.covector() is None else probe.direction(),
        facts=dict(probe.facts),
        missing=(*missing, *notes),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Controls:
    method: ProbeMethod
    split: Split
    study: Study

    def fitted(self, split: Split, purpose: str) -> Float[Tensor, "item class"]:
        """Test probabilities of the method, fitted to another training side."""
        probe = self.method.fit(split.train, derived(self.study.seed, "control", purpose))
        probe.require_unseen(split.test)
        return probe.probabilities(split.test.activations)

    def baselines(
        self, likely: Tensor, elsewhere: Mapping[str, Split]
    ) -> tuple[tuple[Baseline, ...], list[str]]:
        split, seed = self.split, self.study.seed
        mixed = controls.shuffled(split.train, derived(seed, "shuffled labels"))
        recipes: dict[str, Callable[[], Tensor]] = {
            "majority": lambda: controls.majority(split),
            "shuffled labels": lambda: self.fitted(
                Split(train=mixed, test=split.test), "shuffled labels"
            ),
            "type lookup": lambda: controls.type_lookup(split),
            "bag of tokens": self._bag,
        } | {
            name: lambda name=name, other=other: self.fitted(other, name)
            for name, other in elsewhere.items()
        }
        found: list[Baseline] = []
        missing: list[str] = []
        for name, recipe in recipes.items():
            try:
                found.append(self._compared(name, likely, recipe()))
            except (ValueRangeError, TooFewTokensError) as error:
                missing.append(f"{name}: {error}")
        return tuple(found), missing

    def selectivity(self, likely: Tensor, missing: list[str]) -> Measured | None:
        """Accuracy on the labels less that on a control task, resampled together by group."""
        try:
            split = controls.control_split(self.split, derived(self.study.seed, "control task"))
            other = self.fitted(split, "control task")
        except ValueRangeError as error:
            missing.append(f"selectivity: {error}")
            return None
        return self._lead(likely, self.split.test.labels, other, split.test.labels)

    def codes(self, elsewhere: Mapping[str, Split], missing: list[str]) -> dict[str, OnlineCode]:
        """Online codes of the training items' labels and of controls."""
        train, seed = self.split.train, self.study.seed
        wanted: dict[str, ProbeData] = {"labels": train}
        try:
            control = controls.control_split(self.split, derived(seed, "control task"))
            wanted["control task"] = control.train
        except ValueRangeError:
            pass  # the selectivity has said so already
        if "null twin" in elsewhere:
            wanted["null twin"] = elsewhere["null twin"].train
        try:
            return {name: online_code(self.method, d, seed=seed) for name, d in wanted.items()}
        except TooFewTokensError as error:
            missing.append(f"online code: {error}")
            return {}

    def erased(self) -> Scores:
        """Scores of the method after LEACE of the training items."""
        train, test = self.split.train, self.split.test
        eraser = fit_eraser(train.activations, train.labels, n_classes=train.n_classes)
        clean = Split(
            train=train.with_activations(eraser(train.activations)),
            test=test.with_activations(eraser(test.activations)),
        )
        return self._scores(self.fitted(clean, "erased"))

    def _bag(self) -> Float[Tensor, "item class"]:
        bags = controls.bags_of_tokens(self.split)
        probe = Logistic().fit(bags.train, derived(self.study.seed, "bag of tokens"))
        return probe.probabilities(bags.test.activations)

    def _compared(self, name: str, likely: Tensor, other: Tensor) -> Baseline:
        labels = self.split.test.labels
        return Baseline(
            name=name,
            meaning=_MEANINGS.get(name, f"the method on the same items read at {name}"),
            scores=self._scores(other),
            lead=self._lead(likely, labels, other, labels),
        )

    def _scores(self, likely: Tensor) -> Scores:
        test = self.split.test
        return scores_of(likely, test.labels, test.groups, derived(self.study.seed, "probe scores"))

    def _lead(self, mine: Tensor, my_labels: Tensor, other: Tensor, labels: Tensor) -> Measured:
        gain = (mine.argmax(1) == my_labels).double() - (other.argmax(1) == labels).double()
        weights = group_weights(self.split.test.groups, derived(self.study.seed, "leads"))
        return measure(lambda w: w @ gain / w.sum(1), weights)
