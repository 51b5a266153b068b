"""What is special to the bundle `grata`; what it shares with `vptta` stands in test_vptta.py and runs for both."""

from __future__ import annotations

import json

from tests.bundles.conftest import BUNDLES


def read(bundle, name):
    return json.loads((BUNDLES[bundle] / "configs" / name).read_text())


def test_published_hyper_parameters():
    configuration = read("grata", "inference.json")
    published = {"adaptation_learning_rate": 1e-4, "betas": [0.9, 0.999], "reset_on_domain_change": True}
    assert published.items() <= configuration.items()
    vptta = read("vptta", "inference.json")
    published = {
        "adaptation_learning_rate": 0.05,
        "betas": [0.9, 0.99],
        "num_steps": 1,
        "warm_up": 5.0,
        "prompt_fraction": 0.01,
        "memory_size": 40,
        "num_neighbors": 16,
        "temperature": 0.2,
        "reset_on_domain_change": False,
    }
    assert published.items() <= vptta.items()
    assert read("vptta", "polyp.json")["adaptation_learning_rate"] == 0.01


def test_both_bundles_train_and_score_alike():
    """They share source model, data and protocol: only names and the method of adaptation may differ."""
    for name in ("evaluate.json", "multi_gpu_train.json"):
        assert read("grata", name) == read("vptta", name)
    # at 128x128 the published share would be a prompt of one pixel
    assert read("vptta", "small.json") == {**read("grata", "small.json"), "prompt_fraction": 0.04}
    train = read("grata", "train.json")
    assert {key for key, value in read("vptta", "train.json").items() if train[key] != value} == {"bundle_root"}
    vptta, grata = read("vptta", "inference.json"), read("grata", "inference.json")
    differing = {key for key in vptta.keys() & grata.keys() if vptta[key] != grata[key]}
    own = {"bundle_root", "reset_on_domain_change", "adaptation_learning_rate", "betas", "methods", "inferer"}
    assert differing == own
