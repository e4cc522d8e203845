"""A made-up audit of any width, and a headless browser without a network."""

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from modelassay.audit.parts import (
    Concepts,
    Examples,
    LatentDetails,
    ReconstructionRow,
    VarianceMap,
)
from modelassay.audit.result import Audit
from modelassay.audit.verdict import THRESHOLDS, Firings, judge
from modelassay.core.provenance import Provenance
from modelassay.evidence.evidence import Evidence

HOSTILE = (
    "</script><script>window.hacked=1</script>",
    "<img src=x onerror='window.hacked=2'>",
    "\u202ereversed",
    "&lt;b&gt;",
    "=HYPERLINK(1)",
    "{{ 7*7 }}",
    "<!--",
    "\ud800",
)
WORDS = ("def", " self", "return", " import", "\n", "\t", "    ", "(", ")", ":", " x", " name")


def evidence(
    name: str, value: torch.Tensor, *, null: float = 0.0, spread: float = 0.08, **more: Any
) -> Evidence:
    """Evidence with symmetric intervals."""
    scope = "decomposition" if len(value) == 1 and "scope" not in more else "latent"
    described = {
        "title": f"{name.replace('_', ' ').capitalize()} of the latent",
        "scope": scope,
        "null_description": f"what {name} is for shuffled tokens",
        "unit": "share",
        "better": "higher",
        "definition": f"The definition of {name} with <angle> & ampersand.",
        "references": ("chughtai2025", "efron1979"),
        "n": torch.full((len(value),), 1000),
    }
    return Evidence(
        name=name,
        value=value,
        low=value - spread,
        high=value + spread,
        null=torch.full_like(value, null),
        **{**described, **more},
    )


def made_up_audit(
    width: int = 48,
    *,
    seed: int = 0,
    vocabulary: tuple[str, ...] | None = None,
    tokens: torch.Tensor | None = None,
    documents: tuple[str, ...] | None = None,
    per_group: int = 2,
    groups: int = 5,
    window: int = 32,
) -> Audit:
    """An audit with every verdict, every answer, missing values and hostile tokens."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    if vocabulary is None:
        vocabulary = (*HOSTILE, *WORDS, *(f"word{i}" for i in range(480)))
    if tokens is None:
        tokens = torch.randint(len(vocabulary), (max(8, width // 8), 128), generator=generator)
    if documents is None:
        documents = tuple(f"module_{i}/<b>file.py" for i in range(len(tokens)))

    kind = torch.multinomial(
        torch.tensor([0.28, 0.24, 0.44, 0.04]), width, True, generator=generator
    )
    kind[:4] = torch.tensor([0, 1, 2, 3])
    dead = kind == 3

    def of_kind(model: float, activations: float, undetermined: float) -> torch.Tensor:
        centre = torch.tensor([model, activations, undetermined, float("nan")])[kind]
        return centre + 0.06 * torch.randn(width, generator=generator)

    q = torch.where(kind == 2, 0.3, 0.003).where(~dead, torch.nan)
    alive_n = torch.where(dead, 0, 400)
    latent_evidence = (
        evidence("written", of_kind(0.75, 0.35, 0.55), n=alive_n, spread=0.1),
        evidence(
            "read", of_kind(1.4, -1.1, 0.02) * 1.2, unit="log ratio", n=alive_n // 8, spread=0.3,
            p_value=q / 3, q_value=q,
        ),
        evidence("read_next_layer", of_kind(0.9, -0.4, 0.1), unit="log ratio", n=alive_n // 8),
        evidence("null_twin_match", of_kind(0.35, 0.85, 0.6), null=0.2, better="lower", n=alive_n),
        evidence("stable", of_kind(0.9, 0.6, 0.72), null=0.25, n=alive_n),
        evidence(
            "firing_rate", torch.exp(-6 + 1.5 * torch.randn(width, generator=generator)),
            null=float("nan"), spread=1e-4, better="neither",
        ),
    )  # fmt: skip
    table = {e.name: e for e in latent_evidence}
    firings = torch.where(dead, 0, 400)
    firings[5 % width] = 7 if not dead[5 % width] else 0
    judgement = judge(
        written=table["written"],
        read=table["read"],
        learned=table["null_twin_match"],
        stable=table["stable"],
        firings=Firings(
            anywhere=firings, heldout=firings, heldout_documents=torch.where(dead, 0, 60)
        ),
    )

    def row(name: str, quality: float) -> ReconstructionRow:
        measures = (
            "explained_variance",
            "l0",
            "dead_share",
            "ce_recovered_zero",
            "kl_recovered_mean",
        )
        values = (quality, 32.0, 0.04, quality**0.5, quality * 0.9)
        betters = ("higher", "neither", "lower", "higher", "higher")
        return ReconstructionRow(
            name=name,
            evidence=tuple(
                evidence(m, torch.tensor([v]), spread=0.01, better=b)
                for m, v, b in zip(measures, values, betters, strict=True)
            ),
        )

    shares = {"model": 0.0, "activations": 0.4, "undetermined": 0.6, "dead": 0.0}
    frozen = {**shares, "model": 0.1, "undetermined": 0.5}
    euclidean = torch.exp(1.2 * torch.randn(width, generator=generator) - 3)
    gain = torch.tensor([0.4, -2.2, -0.6, 0.0])[kind] + 0.5 * torch.randn(
        width, generator=generator
    )
    null_euclidean = torch.exp(1.4 * torch.randn(128, generator=generator) - 2.5)
    variance = VarianceMap(
        euclidean=euclidean.where(~dead, 0.0),
        fisher=(euclidean * torch.exp(gain) / 40).where(~dead, 0.0),
        null_euclidean=null_euclidean,
        null_fisher=null_euclidean
        * torch.exp(0.4 * torch.randn(128, generator=generator) - 1.2)
        / 40,
        null_kind=("random",) * 80 + ("pca",) * 48,
    )
    return Audit(
        subject="toy <model>",
        site="resid_post.2",
        dictionary="topk (width 48, k 8)",
        width=width,
        d_model=16,
        verdicts=judgement.verdicts,
        reasons=judgement.reasons,
        answers=judgement.answers,
        latent_evidence=latent_evidence,
        reconstruction=(row("topk", 0.9), row("random", 0.35), row("pca", 0.7), row("frozen", 0.6)),
        baselines={"random": shares, "pca": shares, "frozen": frozen},
        variance=variance,
        details=_details(
            width, ~dead, tokens, documents, len(vocabulary), per_group, groups, window, generator
        ),
        vocabulary=vocabulary,
        thresholds=THRESHOLDS,
        provenance=Provenance.collect(
            seed=seed, corpus="made-up text", heldout_tokens=20_000, heldout_documents=140,
            baseline_latents=96,
        ),
    )  # fmt: skip


def _details(
    width: int,
    alive: torch.Tensor,
    tokens: torch.Tensor,
    documents: tuple[str, ...],
    n_tokens: int,
    per_group: int,
    groups: int,
    window: int,
    generator: torch.Generator,
) -> LatentDetails:
    def integers(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(high, shape, generator=generator)

    which = torch.arange(width)[alive]
    each = torch.arange(groups + 1).repeat_interleave(per_group)
    latents = which.repeat_interleave(len(each))
    n = len(latents)
    per_example = integers(6, n) + 1
    value_starts = torch.cat([torch.zeros(1, dtype=torch.long), per_example.cumsum(0)])
    total = int(value_starts[-1])
    group_of = each.repeat(len(which))
    rank = torch.arange(total) - value_starts[:-1].repeat_interleave(per_example)
    offsets = (rank * 3 + integers(3, total)).clamp(max=window - 1)
    size = (1.2 ** -group_of.float()).repeat_interleave(per_example)
    values = size * (0.1 + 4 * torch.rand(total, generator=generator))
    best = torch.zeros(n).scatter_reduce(
        0, torch.arange(n).repeat_interleave(per_example), values, "amax"
    )
    is_best = values == best.repeat_interleave(per_example)
    peaks = torch.zeros(n, dtype=torch.long)
    peaks[torch.arange(n).repeat_interleave(per_example)[is_best]] = offsets[is_best]
    top = 5 * torch.rand(width, 1, generator=generator) + 0.5
    edges = torch.linspace(0, 1, 31)[None, :] * top
    neighbours = integers(width, width, 5)
    f1 = torch.rand(width, 3, generator=generator).sort(1, True).values
    return LatentDetails(
        examples=Examples(
            latents=latents,
            groups=group_of,
            contexts=integers(len(tokens), n),
            starts=integers(tokens.shape[1] - window, n),
            lengths=torch.full((n,), window),
            peaks=peaks,
            value_starts=value_starts,
            offsets=offsets,
            values=values,
            tokens=tokens,
            documents=documents,
        ),
        histogram_counts=integers(300, width, 30) * alive[:, None],
        histogram_edges=edges,
        promoted=integers(n_tokens, width, 10),
        promoted_logits=torch.rand(width, 10, generator=generator).sort(1, descending=True).values,
        suppressed=integers(n_tokens, width, 10),
        suppressed_logits=-torch.rand(width, 10, generator=generator).sort(1, True).values,
        neighbours=neighbours,
        neighbour_cosines=torch.rand(width, 5, generator=generator).sort(1, True).values,
        neighbour_null=0.22,
        concepts=Concepts(
            names=("string", "docstring", "number", "<i>keyword"),
            descriptions=("inside a string", "inside a docstring", "a number", "a keyword"),
            indices=torch.stack([torch.randperm(4, generator=generator)[:3] for _ in range(width)])
            * alive[:, None].long()
            - (~alive[:, None]).long(),
            f1=f1,
            low=f1 - 0.06,
            high=f1 + 0.05,
            null_f1=torch.full((width,), 0.2),
        ),
    )


@pytest.fixture(scope="session")
def make_audit() -> Callable[..., Audit]:
    return made_up_audit


@pytest.fixture(scope="session")
def audit() -> Audit:
    return made_up_audit()


FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe",
)  # fmt: skip


PATIENCE = 200
"""Seconds: the machine may be busy with other things."""


class Browser:
    """Chromium by its DevTools protocol over two pipes: no driver, no port, no package."""

    def __init__(self, executable: str, profile: Path) -> None:
        commands, self._to = os.pipe()
        self._from, answers = os.pipe()
        # Chromium reads commands from descriptor 3 and answers on 4; bash puts them there. They
        # come to it under high numbers, in case one of them has the other's place.
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (commands, answers)]
        redirect = f'exec "$@" 3<&{high[0]} 4>&{high[1]} {high[0]}<&- {high[1]}>&-'
        self.process = subprocess.Popen(
            ["bash", "-c", redirect, "bash", executable, *FLAGS, f"--user-data-dir={profile}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=high,
        )  # fmt: skip
        for descriptor in (commands, answers, *high):
            os.close(descriptor)
        self._buffer = b""
        self._last = 0
        self.events: list[dict[str, Any]] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send(
            "Network.emulateNetworkConditions",
            offline=True, latency=0, downloadThroughput=0, uploadThroughput=0,
        )  # fmt: skip
        self.prefer("light")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._call(method, session=self.session, **parameters)

    def _call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._last:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "the browser must answer"
            piece = os.read(self._from, 1 << 20)
            assert piece, "the browser must stay alive"
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        answer = self.send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until a JavaScript expression is true."""
        deadline = time.monotonic() + PATIENCE
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < deadline, f"never came true: {condition}"
            time.sleep(0.05)

    def prefer(self, scheme: str) -> None:
        """Light or dark; and no smooth scrolling, so that a click finds what it aims at."""
        features = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        self.send(
            "Emulation.setEmulatedMedia",
            features=[{"name": name, "value": value} for name, value in features.items()],
        )

    def open(self, path: Path, fragment: str = "", width: int = 1440, height: int = 900) -> None:
        """A file from disk, without a network."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        self.send("Page.navigate", url="about:blank")
        self.events.clear()
        self.send("Page.navigate", url=path.as_uri() + fragment)
        self.wait("document.documentElement?.dataset.ready")

    def click(self, selector: str) -> None:
        """A real click of the mouse in the middle of an element."""
        found = f"document.querySelector({json.dumps(selector)})"
        self.run(f"{found}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        box = self.run(
            f"(b => [b.x + b.width / 2, b.y + b.height / 2])({found}.getBoundingClientRect())"
        )
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            pressed = {"button": "left", "clickCount": 1} if kind != "mouseMoved" else {}
            self.send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], **pressed)

    def type(self, text: str) -> None:
        """Text into what has the focus."""
        self.send("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """A key, by its name."""
        text = {"text": key} if len(key) == 1 else {}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key)

    def complaints(self) -> list[str]:
        """Errors and warnings of the console, and requests that left the disk."""
        found = []
        for event in self.events:
            method, detail = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                found.append(json.dumps(detail["exceptionDetails"]))
            if method == "Runtime.consoleAPICalled" and detail["type"] in ("error", "warning"):
                found.append(json.dumps(detail["args"]))
            if method == "Log.entryAdded" and detail["entry"]["level"] in ("error", "warning"):
                found.append(json.dumps(detail["entry"]))
            if method == "Network.requestWillBeSent":
                url = detail["request"]["url"]
                if not url.startswith(("file:", "data:", "blob:", "about:")):
                    found.append(f"request to {url}")
        return found

    def close(self) -> None:
        self._call("Browser.close")
        self.process.wait(timeout=30)
        os.close(self._to)
        os.close(self._from)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    executable = shutil.which("chromium") or shutil.which("chromium-browser")
    if executable is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    running = Browser(executable, tmp_path_factory.mktemp("profile"))
    try:
        yield running
    finally:
        running.close()
