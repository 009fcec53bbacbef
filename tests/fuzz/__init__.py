"""Coverage-guided fuzzing of what reads hostile input; ``python -m tests.fuzz.run --help``."""
