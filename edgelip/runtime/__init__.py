"""The device side of edgelip: numpy and one inference engine, nothing else. Valid Python 3.8."""
