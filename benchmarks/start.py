"""How long `seatrial --help` and `import seatrial` take: `make bench-start`. Under a minute."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import heading

RUNS = 20
CASES = {
    "seatrial --help": ([str(Path(sys.executable).parent / "seatrial"), "--help"], 100),
    "import seatrial": ([sys.executable, "-P", "-c", "import seatrial"], 50),
    "python, nothing imported": ([sys.executable, "-P", "-c", ""], None),
}


def main() -> int:
    print(heading("Start-up", "make bench-start"))
    print("| command | median ms | minimum ms | bar ms |\n|---|---|---|---|")
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(RUNS):  # interleaved, so that a busy moment hits all of them
        for name, (command, _bar) in CASES.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            times[name].append((time.perf_counter() - start) * 1e3)
    empty = statistics.median(times["python, nothing imported"])
    bad = []
    for name, (_, bar) in CASES.items():
        median = statistics.median(times[name])
        # The import's bar is for the import, not for the interpreter's own start.
        judged = median - empty if name.startswith("import") else median
        print(f"| {name} | {median:.0f} | {min(times[name]):.0f} | {bar or ''} |")
        if bar and judged > bar:
            bad.append(name)
    beyond = statistics.median(times["import seatrial"]) - empty
    print(f"\n`import seatrial` beyond the interpreter's own start: {beyond:.0f} ms")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
