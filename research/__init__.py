"""What made the shipped weights and the evidence under docs/results: run from a checkout, no part of the package."""
