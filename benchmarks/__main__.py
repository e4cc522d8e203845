"""Run benchmarks one after another, each in a process of its own.

python -m benchmarks                     # all that need no data from elsewhere
python -m benchmarks access main_job     # only these

Those of other libraries join in where their environment is there: see peers/README.md.
"""

import subprocess
import sys

from benchmarks.peers.environment import found_python

ALL = ("access", "trainer_step", "lookup_floor", "main_job", "synth_sae_bench", "forecast")
PEERS = ("peers.written", "peers.step", "peers.quality")

for name in sys.argv[1:] or (ALL + PEERS if found_python() else ALL):
    print(f"\n## {name}\n", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
