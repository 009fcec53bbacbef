"""What is fast, in figures; ``python -m benchmarks`` runs all, README.md says what they mean."""
