"""Run benchmarks one after another, each in a process of its own.

python -m benchmarks                     # all that need no data from elsewhere
python -m benchmarks access main_job     # only these
"""

import subprocess
import sys

ALL = ("access", "trainer_step", "lookup_floor", "main_job", "synth_sae_bench")

for name in sys.argv[1:] or ALL:
    print(f"\n## {name}\n", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
