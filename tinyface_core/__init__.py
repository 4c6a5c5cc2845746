"""Faces in archives of pictures: the detector, the readers, the tables. Runs without Ray; `jobs/` adds it."""

__version__ = "0.1.0"
