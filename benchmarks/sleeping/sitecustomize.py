"""Puts guarded.py beside this file in the place of tinyface_core/detect/guarded.py: the detectors of a job sleep then.

On PYTHONPATH of a Ray cluster's nodes, whose workers Python starts with this. Nothing else of the job is changed.
"""

import importlib.util
import os
import sys

REPLACED = "tinyface_core.detect.guarded"


class Sleeping:
    """Finds one module here, and no other."""

    def find_spec(self, name, path=None, target=None):
        if name != REPLACED:
            return None
        return importlib.util.spec_from_file_location(name, os.path.join(os.path.dirname(__file__), "guarded.py"))


sys.meta_path.insert(0, Sleeping())
