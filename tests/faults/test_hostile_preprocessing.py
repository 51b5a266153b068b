"""What passes the check of each inference config passes its preprocessing, or is refused there with its name."""

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from common.data import DatasetError
from common.data.readers import load_itk
from tests.faults import hostile_dicom, hostile_itk, hostile_nifti, hostile_pictures
from tests.faults.hostile import OverBudgetError, Refused, budget
from tests.faults.hostile_reading import assert_designed

CONFIGS = Path(__file__).resolve().parents[2] / "bundles"
VOLUMES = (hostile_nifti, hostile_itk, hostile_dicom)
CHAINS = {
    "volume_fusion": VOLUMES,
    "maco": VOLUMES,
    "medlsam": VOLUMES,
    "vptta": (hostile_pictures,),
    "grata": (hostile_pictures,),
}
# Random cases of each reader; those of DICOM cost the most.
SLOW = {hostile_nifti: 300, hostile_itk: 240, hostile_dicom: 10, hostile_pictures: 940}


class Chain:
    """Data list and preprocessing of an inference config, without network."""

    def __init__(self, bundle):
        self.bundle = bundle
        self.parser = ConfigParser()
        self.parser.read_config(CONFIGS / bundle / "configs" / "inference.json")
        self.parser["bundle_root"] = str(CONFIGS / bundle)
        if bundle == "medlsam":
            self.parser["boxes_from"] = "label"
        if "domains" in self.parser.config:
            self.parser["domains"] = ["."]
        else:
            self.parser["spacing_mm"] = [1.5, 1.5, 1.5] if bundle == "volume_fusion" else self.parser.get("spacing_mm")
        self.parser.parse(True)
        self.preprocessing = self.parser.get_parsed_content("preprocessing")
        self.check = self.parser["datalist"]

    def run(self, path):
        """Check and preprocess one case."""
        options = {key: self.parser.get(key) for key in ("num_classes",) if key in self.parser.config}
        target = {
            "_target_": self.check["_target_"],
            "datalist": [{"case": "a", "image": str(path)}],
            "keys": ["image"],
        }
        checker = ConfigParser({"checked": {**target, **({} if "photographs" in target["_target_"] else options)}})
        case = checker.get_parsed_content("checked")[0]
        return self.preprocessing(case)


def designed_error(error):
    """Return the refusal in a chain of causes: MONAI wraps what its components raise."""
    while error is not None and not isinstance(error, DatasetError):
        error = error.__cause__ or error.__context__
    return error


def judge(chain, case, folder):
    path = case.write(folder)
    try:
        with budget(limit_bytes=400 * 2**20):
            item = chain.run(path)
    except Exception as error:
        refusal = designed_error(error)
        if refusal is None:
            raise
        assert_designed(refusal)
        return "refused"
    assert not isinstance(case.answer, Refused)
    image = item["image"]
    assert torch.isfinite(torch.as_tensor(image)).all()
    assert image.numel() > 0
    return "ready"


def judge_all(bundle, cases, folder):
    chain, outcomes, wrong = Chain(bundle), [], []
    load_itk()
    for index, case in enumerate(cases):
        place = folder / str(index)
        place.mkdir()
        try:
            outcomes.append(judge(chain, case, place))
        except (Exception, OverBudgetError) as error:
            cause = error.__cause__ or error
            wrong.append(f"{case.name}: {type(cause).__name__}: {str(cause)[:300]}")
    assert not wrong, "\n".join(wrong)
    assert set(outcomes) == {"ready", "refused"}


@pytest.mark.parametrize("bundle", CHAINS)
def test_some_hostile_images(tmp_path, bundle):
    cases = [case for module in CHAINS[bundle] if module is not hostile_dicom for case in module.cases(5, 6)]
    judge_all(bundle, [cases[i] for i in np.linspace(0, len(cases) - 1, 12).astype(int)], tmp_path)


def test_a_tiff_of_an_unknown_type_of_pixels(tmp_path):
    """Was an `AttributeError` in the check of photographs."""
    *_, case = hostile_pictures.random_cases(11, 28)
    assert judge(Chain("vptta"), case, tmp_path) == "refused"


@pytest.mark.slow
@pytest.mark.parametrize("bundle", CHAINS)
def test_hostile_images(tmp_path, bundle):
    cases = []
    for module in CHAINS[bundle]:
        every = module.cases(11, SLOW[module])
        cases += every[::6] if module is hostile_dicom else every
    assert len(cases) >= 1000
    judge_all(bundle, cases, tmp_path)
