"""matplotlib, whatever MPLBACKEND a notebook host has left behind: figures here need no backend."""

import os
import sys

try:
    import matplotlib
except ValueError:
    # The named backend is not installed here, and matplotlib refuses even to be imported.
    if os.environ.pop("MPLBACKEND", None) is None:
        raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        del sys.modules[name]
    import matplotlib

__all__ = ["matplotlib"]
