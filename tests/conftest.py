"""What holds for every test: one thread for each process, as two test processes run side by side.

Two threads of torch in each of two processes on two cores took four times as long.
"""

from __future__ import annotations

import os

for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")
