"""Before the first long step: what a run will need, whether it fits, and its folder."""

from antisgd.study.preflight.plan import Work
from antisgd.study.preflight.sizes import sized
from antisgd.study.preflight.start import opened

__all__ = ["Work", "opened", "sized"]
