"""Warnings before the kill, measured on real loads in memory cgroups: ``python -m tests.near``."""
