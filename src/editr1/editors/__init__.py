"""Anything that turns (source, instruction) into an edited image."""
