"""Print, as JSON, which architectures the trainers named on the command line can make."""

import importlib
import json
import sys

from benchmarks.peers.trainers.job import TRAINERS

found = {
    name: importlib.import_module(f"benchmarks.peers.trainers.{TRAINERS[name]}").ARCHITECTURES
    for name in sys.argv[1:]
}
print(json.dumps(found))
