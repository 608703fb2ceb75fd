"""Stages that make a trained classifier smaller or cheaper, and their order."""

STAGES: dict[str, str] = {
    "prune": "edgelip.compress.prune:Prune",
    "phm": "edgelip.compress.phm:Hypercomplex",
    "qat": "edgelip.compress.quantise:QuantisationAwareTraining",
}
