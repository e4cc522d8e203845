"""The work of `modelassay plan`."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from modelassay.cli.options import Kind, OptimizerName
from modelassay.cli.plan_schemas import PlanHardware, PlanResult
from modelassay.cli.recipes import recipe_of
from modelassay.cli.schemas import SCHEMA_VERSION
from modelassay.core.errors import ValueRangeError
from modelassay.core.files import jsonable
from modelassay.fitting.forecast import Forecast, forecast
from modelassay.fitting.forecast_dictionary import DictionaryShape
from modelassay.fitting.forecast_hardware import Hardware, named_hardware
from modelassay.fitting.forecast_job import Job, ModelShape, Precision
from modelassay.fitting.forecast_measure import measure_hardware
from modelassay.fitting.forecast_model import blocks_until, model_shape
from modelassay.subjects.site import Site

_HEAD_WIDTH = 128  # of models that are given by numbers: the usual one


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A model by name or by numbers, and a site of it."""

    source: str | None
    parameters: int | None
    d_model: int | None
    layers: int | None
    site: str | None

    def shape(self) -> ModelShape:
        """Its sizes.

        Raises:
            ValueRangeError: if numbers are missing, or come beside a name.
        """
        numbers = (self.parameters, self.d_model, self.layers)
        if numbers == (None, None, None):
            return model_shape(self.source or "bundled")
        if self.source is not None or None in numbers:
            missing = "a model's name" if self.source is not None else "some of them"
            raise ValueRangeError(
                "--parameters, --d-model and --layers must come all three, and without a model's "
                f"name; got {missing}. Give the one or the other."
            )
        parameters, d_model, layers = (number or 0 for number in numbers)
        return ModelShape(
            name=f"a model of {parameters:,} parameters",
            d_model=d_model,
            layers=layers,
            heads=max(1, d_model // _HEAD_WIDTH),
            block_parameters=parameters,
            parameters=parameters,
            attention_width=d_model,
        )

    def place(self, shape: ModelShape) -> Site:
        """The site that was asked for, or the middle layer's."""
        return Site.parse(self.site or f"resid_post.{(shape.layers - 1) // 2}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What is to be trained."""

    kind: Kind
    widths: tuple[int, ...]
    k: int
    tokens: int
    passes: int
    batch_tokens: int
    context_tokens: int
    dtype: str
    precision: Precision
    optimizer: OptimizerName = "adam"
    initial_k: int | None = None

    def job(self, model: ModelShape, site: Site) -> Job:
        """The run on a site of a model."""
        recipes = [recipe_of(self.kind, width=width, k=self.k) for width in self.widths]
        return Job(
            model=model,
            blocks_run=blocks_until(site, model.layers),
            dictionaries=tuple(map(DictionaryShape.of, recipes)),
            tokens=self.tokens,
            passes=self.passes,
            batch_tokens=self.batch_tokens,
            context_tokens=self.context_tokens,
            dtype=self.dtype,
            precision=self.precision,
            optimizer=self.optimizer,
            initial_k=self.initial_k,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What is to compute."""

    name: str
    """`here`, or that of a data sheet."""
    share: float
    link: float | None
    """GB/s."""
    device: str
    folder: Path
    seed: int

    def hardware(self, run: Run, job: Job) -> Hardware:
        """Its rates, measured or assumed.

        Raises:
            ValueRangeError: if the share or the link's rate is not above 0.
        """
        if self.link is not None and not self.link > 0:
            raise ValueRangeError(
                f"--link must be above 0; got {self.link}. Leave it out if it is not known."
            )
        if self.name == "here":
            found = measure_hardware(
                job,
                lambda width: recipe_of(run.kind, width=width, k=run.k),
                device=self.device,
                folder=self.folder,
                seed=self.seed,
            )
        else:
            found = named_hardware(self.name, share=self.share)
        return found if self.link is None else replace(found, link_bandwidth=1e9 * self.link)


def plan_run(
    model: Model, run: Run, machine: Machine, *, within_hours: float | None, streamed: bool | None
) -> PlanResult:
    """Say what a run would take."""
    shape = model.shape()
    site = model.place(shape)
    job = run.job(shape, site)
    found = forecast(job, machine.hardware(run, job), within_hours=within_hours, streamed=streamed)
    return plan_result(found, site)


def plan_result(found: Forecast, site: Site) -> PlanResult:
    """A forecast as it is printed."""
    job = found.job
    return jsonable(
        PlanResult(
            schema_version=SCHEMA_VERSION,
            subject=job.model.name,
            site=str(site),
            dictionaries=[
                {
                    "name": dictionary.name,
                    "width": dictionary.width,
                    "active": dictionary.active,
                    "trained_parameters": dictionary.trained_parameters(job.d),
                }
                for dictionary in job.dictionaries
            ],
            tokens=job.tokens,
            batch_tokens=job.batch_tokens,
            context_tokens=job.context_tokens,
            steps=job.steps,
            passes=job.passes,
            dtype=job.dtype,
            precision=job.precision,
            optimizer=job.optimizer,
            initial_k=job.initial_k,
            hardware=_hardware(found.hardware),
            flops={**asdict(found.flops), "total": found.flops.total},
            memory={**asdict(found.memory), "total": found.memory.total},
            storage=asdict(found.storage),  # pyright: ignore[reportArgumentType]  # same keys
            streamed=found.streamed,
            communication={**asdict(found.communication), "total": found.communication.total},
            terms=[
                {"name": term.name, "kind": term.kind, "hours": term.seconds / 3600}
                for term in found.terms
            ],
            hours=found.hours,
            bound=found.bound,
            fits=found.fits,
            shards=found.layout.shards,
            replicas=found.layout.replicas,
            devices=found.layout.devices,
            warnings=list(found.warnings),
        )
    )


def _hardware(hardware: Hardware) -> PlanHardware:
    content = asdict(hardware)
    return {key: content[key] for key in PlanHardware.__annotations__}  # pyright: ignore
