"""Anything that answers images and text with text."""
