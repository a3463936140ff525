"""Rows and figures of results: pure functions, which compute no result and write no file."""

from antisgd.study.findings.study import of_study

__all__ = ["of_study"]
