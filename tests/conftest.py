"""One thread and repeatable draws for every test."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tests share two cores

from hypothesis import settings

settings.register_profile("edgelip", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("edgelip")
