"""Stages that make a trained classifier smaller or cheaper, and their order."""

STAGES: dict[str, str] = {
    "activation": "edgelip.compress.activation:PlainActivation",
    "prune": "edgelip.compress.prune:Prune",
    "phm": "edgelip.compress.phm:Hypercomplex",
    "low_rank": "edgelip.compress.low_rank:LowRankStage",
    "sparsify": "edgelip.compress.sparsify:Sparsify",
    "store": "edgelip.compress.store:Store",
    "ptq": "edgelip.compress.quantise:PostTrainingQuantisation",
    "qat": "edgelip.compress.quantise:QuantisationAwareTraining",
}
