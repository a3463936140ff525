"""Writes the report.html of a run folder anew.

python -m experiments.report RUN_FOLDER        writes RUN_FOLDER/report.html anew
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from antisgd import results
from antisgd.study import report
from experiments import paper


def main(arguments: Sequence[str]) -> None:
    """Renders the report of the run folder given on the command line."""
    parser = argparse.ArgumentParser("python -m experiments.report", description=__doc__)
    parser.add_argument("run_folder", type=Path, help="of a finished run")
    folder = parser.parse_args(arguments).run_folder
    page = report.render(folder, paper.CAPTIONED, paper.HEADLINED)
    results.write_text(folder / "report.html", page)
    print(f"wrote {folder / 'report.html'}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
