"""One case in three forms, any orientation, other grids, and what is refused."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from common.data import DatasetError
from common.evaluation import load_label_set
from common.evaluation.masks import read_case_masks, resample_masks


def voxels(case, name):
    """Whole masks again."""
    mask = np.zeros(case.grid.shape, dtype=bool)
    if case.masks[name] is not None:
        mask[case.masks[name].window] = case.masks[name].crop
    return mask


def same_masks(first, second):
    assert first.grid.coincides(second.grid)
    for name in first.masks:
        np.testing.assert_array_equal(voxels(first, name), voxels(second, name))


def test_a_label_map(tmp_path, write, label_map, label_set):
    case = read_case_masks(write(tmp_path / "a.nii.gz", label_map()), label_set)
    assert case.grid.spacing_mm == pytest.approx((0.8, 1.0, 3.0))
    # from LPS to RAS: two axes are turned around
    np.testing.assert_array_equal(voxels(case, "liver"), label_map()[::-1, ::-1] == 1)
    assert case.masks["spleen"].num_voxels == 3 * 4 * 4
    assert case.masks["spleen"].crop.shape == (3, 4, 4)


def test_three_forms_of_the_same_case(tmp_path, write, label_map, label_set):
    labels = label_map()
    map_case = read_case_masks(write(tmp_path / "map.nii.gz", labels), label_set)
    channels = np.stack([labels == 1, labels == 2], axis=-1).astype(np.uint8)
    same_masks(map_case, read_case_masks(write(tmp_path / "channels.nii.gz", channels), label_set))
    write(tmp_path / "case" / "liver.nii.gz", labels == 1)
    write(tmp_path / "case" / "segmentations" / "spleen.nii.gz", 255 * (labels == 2).astype(np.uint8))
    write(tmp_path / "case" / "ct.nii.gz", labels.astype(np.float32))
    same_masks(map_case, read_case_masks(tmp_path / "case", label_set))


def test_structures_may_overlap(tmp_path, write, label_set):
    channels = np.ones((5, 6, 7, 2), dtype=np.uint8)
    case = read_case_masks(write(tmp_path / "a.nii.gz", channels), label_set)
    assert voxels(case, "liver").all()
    assert voxels(case, "spleen").all()


def test_a_stack_of_masks_as_segrap_submits_it(tmp_path):
    import itk

    stack = np.zeros((2, 4, 5, 6), dtype=np.uint8)
    stack[0, 1:3, 2:4, 1:5] = 1
    stack[1, 0, 0, 0] = 1
    image = itk.image_from_array(stack)
    image.SetSpacing([0.5, 0.5, 3.0, 1.0])
    itk.imwrite(image, str(tmp_path / "a.mha"), compression=True)
    case = read_case_masks(tmp_path / "a.mha", load_label_set("segrap2023_gtvs"))
    assert case.grid.shape == (6, 5, 4)
    assert case.grid.spacing_mm == pytest.approx((0.5, 0.5, 3.0))
    assert case.masks["GTVp"].num_voxels == 2 * 2 * 4
    assert case.masks["GTVnd"].num_voxels == 1


def test_a_region_joins_its_labels(tmp_path, write, label_map):
    (tmp_path / "set.json").write_text(
        '{"structures": [{"name": "both", "label": [1, 2]}, {"name": "one", "label": 1}]}'
    )
    case = read_case_masks(write(tmp_path / "a.nii.gz", label_map()), load_label_set(tmp_path / "set.json"))
    np.testing.assert_array_equal(voxels(case, "both"), label_map()[::-1, ::-1] > 0)


@pytest.mark.parametrize("axes", ["RAS", "LPI", "PSR", "SAL"])
def test_the_orientation_of_the_file_changes_nothing(tmp_path, write, label_map, label_set, affine, axes):
    stored = nib.Nifti1Image(label_map(1), affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(axes))
    turned = stored.as_reoriented(turn)
    nib.save(turned, tmp_path / "turned.nii.gz")
    original = read_case_masks(write(tmp_path / "a.nii.gz", label_map(1)), label_set)
    same_masks(original, read_case_masks(tmp_path / "turned.nii.gz", label_set))


def test_resampling_to_half_the_spacing_and_back(tmp_path, write, label_map, label_set, affine):
    coarse = read_case_masks(write(tmp_path / "a.nii.gz", label_map()), label_set)
    fine_affine = affine @ np.diag([0.5, 0.5, 0.5, 1.0])
    fine_affine[:3, 3] = (affine @ [-0.25, -0.25, -0.25, 1.0])[:3]
    fine_labels = label_map().repeat(2, 0).repeat(2, 1).repeat(2, 2)
    fine = read_case_masks(write(tmp_path / "fine.nii.gz", fine_labels, fine_affine), label_set)
    same_masks(resample_masks(coarse, fine.grid), fine)
    same_masks(resample_masks(fine, coarse.grid), coarse)


def test_resampling_leaves_nothing_outside_of_the_grid(tmp_path, write, label_map, label_set, affine):
    case = read_case_masks(write(tmp_path / "a.nii.gz", label_map()), label_set)
    affine[:3, 3] += 500
    far = read_case_masks(write(tmp_path / "far.nii.gz", label_map(), affine), label_set)
    assert resample_masks(case, far.grid).masks == {"liver": None, "spleen": None}


def test_two_dimensions(tmp_path, label_set):
    labels = np.zeros((20, 30), dtype=np.uint8)
    labels[4:9, 10:20] = 1
    Image.fromarray(labels).save(tmp_path / "a.png")
    case = read_case_masks(tmp_path / "a.png", label_set)
    assert case.grid.affine is None
    assert case.grid.spacing_mm == (1.0, 1.0)
    assert case.grid.shape == (20, 30)
    np.testing.assert_array_equal(voxels(case, "liver"), labels == 1)
    assert case.masks["spleen"] is None
    with pytest.raises(ValueError, match="Only 3D grids with geometry can be resampled"):
        resample_masks(case, case.grid)


def test_pictures_in_ranges_of_gray(tmp_path):
    """A cup inside of a disc; rows come first, so that a picture is drawn upright."""
    gray = np.full((20, 30), 255, dtype=np.uint8)
    gray[4:12, 10:20] = 128
    gray[6:9, 12:18] = 0
    Image.fromarray(gray).save(tmp_path / "a.png")
    case = read_case_masks(tmp_path / "a.png", load_label_set("optic_disc_cup"))
    assert case.grid.shape == (20, 30)
    np.testing.assert_array_equal(voxels(case, "disc"), gray < 255)
    np.testing.assert_array_equal(voxels(case, "cup"), gray == 0)


def test_polyps_in_lossy_color_pictures(tmp_path):
    gray = np.zeros((64, 96), dtype=np.uint8)
    gray[20:40, 30:60] = 255
    Image.fromarray(np.stack([gray] * 3, axis=-1)).save(tmp_path / "a.jpg", quality=60)
    case = read_case_masks(tmp_path / "a.jpg", load_label_set("polyps"))
    np.testing.assert_array_equal(voxels(case, "polyp"), gray > 127)


def test_colored_pictures_are_no_masks(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    assert "must be a gray mask of 8 bits" in refused(tmp_path / "a.png", load_label_set("polyps"))


def refused(path, label_set):
    with pytest.raises(DatasetError) as caught:
        read_case_masks(path, label_set)
    return str(caught.value)


def test_refusals_of_one_file(tmp_path, write, label_map, label_set):
    labels = label_map()
    labels[0, 0, :3] = (3, 7, 9)
    message = refused(write(tmp_path / "outside.nii.gz", labels), label_set)
    assert "must hold labels of the label set; found 3, 7, 9 outside of it. Remedy: " in message
    message = refused(write(tmp_path / "half.nii.gz", label_map() * np.float32(0.5)), label_set)
    assert "must hold whole numbers; found fractions or NaN" in message
    message = refused(write(tmp_path / "series.nii.gz", np.zeros((4, 5, 6, 5), dtype=np.uint8)), label_set)
    assert "must be a label map or have a channel for each of the 2 structures; found 5 channels or time" in message
    channels = np.stack([label_map(), label_map()], axis=-1)
    message = refused(write(tmp_path / "channels.nii.gz", channels), label_set)
    assert "must be a mask of one structure; found several values up to 2" in message
    message = refused(write(tmp_path / "negative.nii.gz", label_map().astype(np.int16) - 1), label_set)
    assert "must hold labels from 0 to 65535; found values from -1 to 1" in message


def test_a_label_map_of_overlapping_structures_is_refused(tmp_path, write, label_map):
    message = refused(write(tmp_path / "a.nii.gz", label_map()), load_label_set("segrap2023_oars"))
    assert "must have a channel per structure, or be a folder with a file per structure; found a label map" in message


def test_refusals_of_a_folder(tmp_path, write, label_map, label_set, affine):
    mask = label_map() == 1
    write(tmp_path / "twice" / "liver.nii.gz", mask)
    write(tmp_path / "twice" / "segmentations" / "liver.nii", mask)
    assert "must be the only file of its structure; found " in refused(tmp_path / "twice", label_set)
    write(tmp_path / "map" / "liver.nii.gz", label_map())
    assert "must be a mask of one structure; found several values up to 2" in refused(tmp_path / "map", label_set)
    write(tmp_path / "moved" / "liver.nii.gz", mask)
    affine[0, 3] += 5
    write(tmp_path / "moved" / "spleen.nii.gz", mask, affine)
    assert "spleen.nii.gz: must lie where liver lies; found 16 x 12 x 8 of 0.8 x" in refused(
        tmp_path / "moved", label_set
    )
    write(tmp_path / "others" / "heart.nii.gz", mask)
    assert "must hold a file for a structure; found heart. Remedy: name files such as liver.nii.gz" in refused(
        tmp_path / "others", label_set
    )
    write(tmp_path / "deep" / "liver.nii.gz", np.zeros((4, 4, 4, 3), dtype=np.uint8))
    assert "must hold one mask; found 3 channels" in refused(tmp_path / "deep", label_set)
