"""The published raw data for the tests of this folder."""

from public_data import public_data, published

__all__ = ["public_data", "published"]
