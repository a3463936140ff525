"""An experiment of half a second for the tests of the sweep: it squares --x."""

import json
import sys
import time
from pathlib import Path

given = dict(argument[2:].split("=", 1) for argument in sys.argv[1:])
folder = Path(given["output_dir"])
folder.mkdir(parents=True, exist_ok=True)
time.sleep(float(given.get("seconds", 0)))
if given["x"] == given.get("broken"):
    sys.exit("error: broken")
(folder / "summary.json").write_text(json.dumps([{"id": "square", "here": float(given["x"]) ** 2}]))
(folder / "report.html").write_text("<html></html>")
