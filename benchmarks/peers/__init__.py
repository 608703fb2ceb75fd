"""Other tools that time a network, beside our runner: each in its own environment, in turns, on one file and clips."""
