"""The reward as a JSON service, and the dialects of other trainers."""
