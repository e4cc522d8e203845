"""How long the main job takes, and how much memory: `modelassay audit` with its defaults.

python -m benchmarks.main_job
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_MINUTES = 6
LIMIT_GIB = 6


def main() -> None:
    """Run the job in a process of its own and print its wall-clock time and peak memory."""
    program = str(Path(sys.executable).parent / "modelassay")
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        subprocess.run([program, "audit", "--out", f"{folder}/audit"], check=True)
        minutes = (time.perf_counter() - begin) / 60
    # Linux counts in KiB, and only the largest child, which is the job.
    gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    load = os.getloadavg()[2]
    print("| quantity | measured | limit |\n|---|---|---|")
    print(
        f"| minutes on {os.cpu_count()} cores (load {load:.1f}) | {minutes:.1f} | {LIMIT_MINUTES} |"
    )
    print(f"| peak memory, GiB | {gib:.1f} | {LIMIT_GIB} |")


if __name__ == "__main__":
    main()
