"""Isolated signs as landmarks: readers of GISLR's files, and what makes stored clips of them."""
