"""Backends of `tinyface_core.storage`: local disk, S3, and whatever else fsspec knows. Use the front, not these."""
