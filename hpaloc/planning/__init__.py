"""Checks before the first job: whether configuration, sheets and files allow what is asked."""
