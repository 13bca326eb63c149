"""Coverage of what functions do, without the lines that an import alone runs (definitions,
constants).

coverage run -m pytest; coverage combine; coverage json -o coverage.json; python
tests/coverage_of_functions.py coverage.json
"""

import json
import sys
from pathlib import Path

files = json.loads(Path(sys.argv[1]).read_text())["files"]
total = [0, 0]
for name, file in sorted(files.items()):
    bodies = [body["summary"] for function, body in file["functions"].items() if function]
    covered = sum(body["covered_lines"] for body in bodies)
    statements = sum(body["num_statements"] for body in bodies)
    if statements and name.startswith("perf/"):
        total = [total[0] + covered, total[1] + statements]
        print(f"{covered / statements:7.1%} {statements:5}  {name}")
print(f"{total[0] / total[1]:7.1%} {total[1]:5}  perf, lines inside functions")
