"""matplotlib, whatever MPLBACKEND a notebook host has left behind: figures here need no backend."""

import os

try:
    import matplotlib
except ValueError:
    # The named backend is not installed here, and matplotlib refuses even to be imported.
    if os.environ.pop("MPLBACKEND", None) is None:
        raise
    import matplotlib

__all__ = ["matplotlib"]
