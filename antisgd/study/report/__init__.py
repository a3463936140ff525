"""report.html: one self-contained page of a run folder."""

from antisgd.study.report.captions import CAPTIONS, Caption, caption
from antisgd.study.report.headlines import HEADLINES
from antisgd.study.report.page import render

__all__ = ["CAPTIONS", "HEADLINES", "Caption", "caption", "render"]
