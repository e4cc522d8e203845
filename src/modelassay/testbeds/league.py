"""The result of a league: methods on testbeds, in every arm, over seeds.

On disk a league is `league.json`, to read and to script against, and `pictures.json`, what the
page draws beside it. `league.json` holds, at its top level:

| key | content |
|---|---|
| `schema_version` | 1 |
| `testbeds`, `methods`, `seeds`, `fits` | what was run |
| `rows` | one per testbed, arm, method, seed and fit: its scores |
| `standings` | one per testbed and method: means over arms, with intervals over seeds |
| `known` | per testbed: its known numbers beside what was measured |
| `failures` | what could not be run, and why |
| `provenance` | versions, first seed, device, time |

Readers must refuse a `schema_version` that they do not know.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from modelassay.core.errors import CorruptFileError
from modelassay.core.files import read_json, write_json
from modelassay.core.provenance import Provenance
from modelassay.testbeds.known import KnownNumber
from modelassay.testbeds.league_storage import (
    Row,
    drawings_from,
    drawings_json,
    known_from,
    known_json,
    row_from,
)
from modelassay.testbeds.picture import Drawing
from modelassay.testbeds.standing import Standing, standing_of

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class TestbedEntry:
    """A testbed that takes part."""

    __test__ = False  # its name makes pytest take it for a test

    name: str
    title: str
    claim: str
    references: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class MethodEntry:
    """A method that takes part."""

    name: str
    title: str
    sees: Literal["activations", "model"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """What could not be run."""

    testbed: str
    seed: int
    what: str
    """"building", the name of a method, "known numbers" or "pictures"."""
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class League:
    """Every method's scores on every testbed."""

    testbeds: tuple[TestbedEntry, ...]
    methods: tuple[MethodEntry, ...]
    seeds: tuple[int, ...]
    """Of the constructions."""
    fits: int
    """Of each method to each construction."""
    rows: tuple[Row, ...]
    known: dict[str, tuple[KnownNumber, ...]]
    """Testbed -> its known numbers, reproduced at the first seed."""
    drawings: dict[str, tuple[Drawing, ...]]
    """Testbed -> its pictures, at the first seed."""
    failures: tuple[Failure, ...]
    provenance: Provenance

    def rows_of(self, testbed: str, method: str) -> tuple[Row, ...]:
        """The rows of one method on one testbed; none if it failed."""
        return tuple(row for row in self.rows if (row.testbed, row.method) == (testbed, method))

    def arms(self, testbed: str) -> tuple[str, ...]:
        """Names of a testbed's arms; none if it failed."""
        return tuple(dict.fromkeys(row.arm for row in self.rows if row.testbed == testbed))

    def standing(self, testbed: str, method: str) -> Standing | None:
        """What a method reached on a testbed; None if it failed."""
        rows = self.rows_of(testbed, method)
        return standing_of(rows) if rows else None

    def standings(self) -> tuple[Standing, ...]:
        """All that were reached, testbed by testbed."""
        found = (self.standing(t.name, m.name) for t in self.testbeds for m in self.methods)
        return tuple(standing for standing in found if standing is not None)

    def summary(self) -> dict[str, Any]:
        """The content of `league.json`, and of `modelassay testbeds run --json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "testbeds": [asdict(t) | {"arms": self.arms(t.name)} for t in self.testbeds],
            "methods": [asdict(method) for method in self.methods],
            "seeds": self.seeds,
            "fits": self.fits,
            "rows": [asdict(row) for row in self.rows],
            "standings": [asdict(standing) for standing in self.standings()],
            "known": {name: known_json(numbers) for name, numbers in self.known.items()},
            "failures": [asdict(failure) for failure in self.failures],
            "provenance": self.provenance.as_json(),
        }

    def save(self, directory: str | Path) -> None:
        """Write `pictures.json`, then `league.json`."""
        pictures = {name: drawings_json(drawn) for name, drawn in self.drawings.items()}
        write_json(Path(directory) / "pictures.json", pictures)
        write_json(Path(directory) / "league.json", self.summary())


def load_league(directory: str | Path) -> League:
    """Read a league back.

    Raises:
        CorruptFileError: if a file is damaged, of another schema, or lacks a part.
        FileNotFoundError: if there is no league.
    """
    path = Path(directory) / "league.json"
    content = read_json(path)
    if content.get("schema_version") != SCHEMA_VERSION:
        raise CorruptFileError(
            f"{str(path)!r} must have schema_version {SCHEMA_VERSION}; got "
            f"{content.get('schema_version')!r}. Read it with the modelassay that wrote it."
        )
    pictures = read_json(Path(directory) / "pictures.json")
    try:
        return _assemble(content, pictures)
    except KeyError as error:
        raise CorruptFileError(
            f"The league in {str(directory)!r} must be complete; got none of {error}. "
            "Run it again with --resume."
        ) from error


def _assemble(content: dict[str, Any], pictures: dict[str, Any]) -> League:
    return League(
        testbeds=tuple(
            TestbedEntry(
                name=entry["name"],
                title=entry["title"],
                claim=entry["claim"],
                references=tuple(entry["references"]),
            )
            for entry in content["testbeds"]
        ),
        methods=tuple(MethodEntry(**entry) for entry in content["methods"]),
        seeds=tuple(content["seeds"]),
        fits=content["fits"],
        rows=tuple(map(row_from, content["rows"])),
        known={name: known_from(entries) for name, entries in content["known"].items()},
        drawings={name: drawings_from(entries) for name, entries in pictures.items()},
        failures=tuple(Failure(**entry) for entry in content["failures"]),
        provenance=Provenance.from_json(content["provenance"]),
    )
