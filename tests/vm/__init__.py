"""Kernels and whole systems under QEMU: ``python -m tests.vm --help``, docs/vm-lab.md."""
