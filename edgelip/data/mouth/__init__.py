"""From the frames of a face to mouth ROIs: who finds the mouth, and the cut."""
