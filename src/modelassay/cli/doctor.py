"""`modelassay doctor`: what this machine offers, and whether the installation is whole."""

from pathlib import Path
from typing import Annotated

import typer

from modelassay.cli.options import AsJson, Device, Seed, say
from modelassay.cli.schemas import DoctorResult


def doctor(
    as_json: AsJson = False,
    seed: Seed = 0,
    device: Device = "cpu",
    out: Annotated[Path, typer.Option(help="Folder whose disk is looked at.")] = Path("out"),
) -> None:
    """Check the installation, the device and the disk.

    Shows versions, device, threads and free disk, and compares the bundled model's files with
    their checksums. Fails (exit code 1) if the device cannot compute or a file is damaged.
    """
    from modelassay.cli.diagnosis import diagnose

    findings = diagnose(device=device, seed=seed, out=out)
    say(_table(findings), findings, as_json=as_json)
    if not findings["healthy"]:
        raise typer.Exit(1)


def _table(findings: DoctorResult) -> str:
    device = findings["device"]
    rows = {
        **findings["versions"],
        f"device {device['name']}": device["state"],
        "accelerators": device["accelerators"],
        "threads": device["threads"],
        "free disk": f"{findings['free_disk_gib']} GiB",
        "bundled model": findings["bundled_model"],
    }
    wide = max(map(len, rows))
    return "\n".join(f"{name:<{wide}}  {value}" for name, value in rows.items())
