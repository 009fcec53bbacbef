"""The live watch: the main thread, which never waits, the worker, which may, and the loop that drives
them."""
