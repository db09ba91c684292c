"""Thin plug-ins for other trainers."""
