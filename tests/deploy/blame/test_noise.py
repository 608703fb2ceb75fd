"""Signal to noise of layers: against numpy on the deployed files, and of nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tiny_suspects import BAD_LAYER, Suspects

from edgelip.deploy.blame.layered_graph import LayeredGraph
from edgelip.deploy.blame.noise import layer_noise, sqnr_db
from edgelip.deploy.blame.places import match_layers
from edgelip.runtime.bundle import Bundle
from edgelip.runtime.clip import network_input


def test_the_spoilt_layer_is_the_noisiest_alone_and_those_after_it_inherit(suspects: Suspects) -> None:
    bundles = [Bundle.open(suspects[name]) for name in ("dense", "bad")]
    reference, suspect = (LayeredGraph(bundle, bundle.model_for("ort")) for bundle in bundles)
    with np.load(suspects.clips) as archive:
        clips = network_input(archive["frames"][:6], bundles[0].manifest.clip)
    places = match_layers(reference, suspect).found
    noise = layer_noise(reference, suspect, places, clips)
    alone = {name: each.alone_db for name, each in noise.items() if each.alone_db is not None}
    assert [*alone] == [place.name for place in places]
    assert min(alone, key=lambda name: alone[name]) == BAD_LAYER
    first = places[0].name  # nothing stands before it
    assert noise[first].inside_db == pytest.approx(alone[first], abs=0.01)
    assert noise["head"].inside_db < alone["head"] - 3


def test_the_same_file_has_no_noise(suspects: Suspects) -> None:
    bundle = Bundle.open(suspects["dense"])
    graph = LayeredGraph(bundle, bundle.model_for("ort"))
    clips = network_input(bundle.expected().frames_NTHW[:2], bundle.manifest.clip)
    noise = layer_noise(graph, graph, match_layers(graph, graph).found, clips)
    assert all(each.inside_db > 100 for each in noise.values())
    assert all(each.alone_db is not None and each.alone_db > 100 for each in noise.values())


def test_ten_times_weaker_noise_is_twenty_decibel_more() -> None:
    clean = np.array([[3.0, 4.0]])
    assert sqnr_db(clean + np.array([[0.3, 0.4]]), clean) == pytest.approx(20)
    assert sqnr_db(clean + np.array([[0.03, 0.04]]), clean) == pytest.approx(40)
    assert sqnr_db(clean, clean) == math.inf
    assert sqnr_db(clean, 0 * clean) == -math.inf
