"""Seconds for the stationary variances (Eq. 6) of a million curvatures.

    python -m experiments.benchmarks.curvatures

float64, compilation apart. Last comes one JSON line.
"""

import argparse
import json
import os
import platform
import time

import jax
import numpy as np

from antisgd import theory


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    eigenvalues = np.geomspace(1e-9, 100, 1_000_000)
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, jax {jax.__version__}")
    seconds = {}
    for name, law in (
        ("without_replacement", theory.without_replacement(1000)),
        ("with_replacement", theory.with_replacement()),
        ("partial_last", theory.partial_last(50_000, 64)),
    ):
        times = []
        for _ in range(4):
            start = time.perf_counter()
            theory.stationary_variances(eigenvalues, 6.63e-4, 0.9, law)
            times.append(time.perf_counter() - start)
        seconds[name] = round(min(times[1:]), 3)
        print(f"{name:22s} {seconds[name]:.2f} s, the first call {times[0]:.2f} s")
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
