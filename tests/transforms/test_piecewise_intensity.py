"""Piecewise linear intensities."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from common.transforms import PiecewiseIntensityd

KNOTS, VALUES = [-1000, -200, 200, 1500], [0.0, 0.2, 0.8, 1.0]


def test_equals_interpolation_and_keeps_the_geometry():
    hu = torch.tensor([[[-2000.0, -1000.0, -600.0], [-200.0, 0.0, 200.0], [850.0, 1500.0, 3000.0]]])[None]
    image = MetaTensor(hu, affine=torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0])))
    mapped = PiecewiseIntensityd("image", KNOTS, VALUES)({"image": image})["image"]
    np.testing.assert_allclose(mapped.numpy(), np.interp(hu.numpy(), KNOTS, VALUES), atol=1e-6)
    assert torch.equal(mapped.affine, image.affine)


@pytest.mark.parametrize(("knots", "values"), [([0, 1], [0]), ([0], [0]), ([1, 0], [0, 1])])
def test_refusals(knots, values):
    with pytest.raises(ValueError, match="knots must ascend and have a value each, at least two, got"):
        PiecewiseIntensityd("image", knots, values)
