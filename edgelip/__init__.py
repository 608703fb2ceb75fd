"""Train, compress, export and honestly measure lip-reading word classifiers on edge devices."""

__version__ = "0.1.0"
