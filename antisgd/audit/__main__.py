"""Audits a recorded run: python -m antisgd.audit recording.npz [--output_dir=FOLDER]

Prints the verdict and writes audit.html, audit.json, audit.png and audit.pdf, beside the recording
in a folder of its name unless told otherwise. The keys of the .npz are the fields of
`antisgd.audit.Recording`.
"""

import argparse
import sys
from pathlib import Path

from antisgd.audit import page
from antisgd.audit.examination import audit
from antisgd.audit.recording import load


def main() -> None:
    """Reads, audits, writes; what cannot be is one line and exit code 1."""
    parser = argparse.ArgumentParser("python -m antisgd.audit", description=__doc__.split("\n")[0])
    parser.add_argument("recording", type=Path, help="an .npz, see antisgd.audit.Recording")
    parser.add_argument("--output_dir", type=Path, help="folder of the page")
    given = parser.parse_args()
    folder = given.output_dir or given.recording.with_suffix("")
    try:
        found = audit(load(given.recording))
        page.write(found, folder)
    except (ValueError, OSError) as error:
        sys.exit(f"{error}")
    print(page.text(found))
    print(f"\naudit.html and its figure are in {folder}")


if __name__ == "__main__":
    main()
