"""One convention for all formats, and a refusal for everything that the readers would let pass."""

import gzip
import json
import math
import resource

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import LoadImage
from PIL import Image

from common.data import DatasetError
from common.data.readers import case_name, displacement_mm, read_volume

VOLUME_FORMATS = [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", "dicom"]


def refused(path):
    with pytest.raises(DatasetError) as caught:
        read_volume(path)
    assert len(caught.value.problems) == 1
    assert caught.value.problems[0].remedy
    return str(caught.value)


@pytest.mark.parametrize("suffix", VOLUME_FORMATS)
def test_a_volume_has_the_same_voxels_and_affine_in_every_format(tmp_path, voxels, affine, write_volume, suffix):
    path = write_volume(tmp_path, voxels, suffix)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, voxels)
    np.testing.assert_allclose(volume.affine, affine, atol=2e-5)
    assert volume.spatial_shape == (13, 9, 7)
    assert volume.num_channels == 1
    assert volume.spacing_mm == pytest.approx((0.8, 1.1, 3.0), abs=1e-5)
    assert volume.warnings == []


@pytest.mark.parametrize("suffix", VOLUME_FORMATS)
def test_a_volume_is_read_as_the_stock_transform_reads_it(tmp_path, voxels, write_volume, suffix):
    path = write_volume(tmp_path, voxels, suffix)
    volume, stock = read_volume(path), LoadImage()(str(path))
    np.testing.assert_array_equal(volume.array, stock.numpy())
    np.testing.assert_array_equal(volume.affine, stock.affine.numpy())


def test_shared_volumes_are_read_as_the_stock_transform_reads_them(shared_data):
    for name in ("ct_totalsegmentator/abdomen_pelvis.nii.gz", "ct_elastix_lung_small/3DCT_lung_baseline_small.mha"):
        volume, stock = read_volume(shared_data / name), LoadImage()(str(shared_data / name))
        np.testing.assert_array_equal(volume.array, stock.numpy())
        np.testing.assert_array_equal(volume.affine, stock.affine.numpy())


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16", "F", "1"])
def test_a_picture_is_read_as_the_stock_transform_reads_it(tmp_path, mode):
    rng = np.random.default_rng(0)
    arrays = {
        "L": rng.integers(0, 255, (20, 30)).astype(np.uint8),
        "RGB": rng.integers(0, 255, (20, 30, 3)).astype(np.uint8),
        "I;16": rng.integers(0, 65535, (20, 30)).astype(np.uint16),
        "F": rng.random((20, 30)).astype(np.float32),
        "1": rng.random((20, 30)) > 0.5,
    }
    path = tmp_path / f"picture{'.tif' if mode in ('F', 'I;16') else '.png'}"
    Image.fromarray(arrays[mode]).save(path)
    volume, stock = read_volume(path), LoadImage(reader="PILReader")(str(path))
    assert volume.spatial_shape == (30, 20)  # x, y
    assert volume.num_channels == (3 if mode == "RGB" else 1)
    assert volume.affine is None
    np.testing.assert_array_equal(volume.array, stock.numpy())
    np.testing.assert_array_equal(volume.array, arrays[mode].swapaxes(0, 1))  # red stays first


def test_scaled_voxels_are_scaled(tmp_path, voxels, affine):
    image = nib.Nifti1Image(voxels * 0.5 + 3, affine)
    image.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "scaled.nii.gz")
    np.testing.assert_allclose(read_volume(tmp_path / "scaled.nii.gz").array, voxels * 0.5 + 3, atol=0.05)


def test_trailing_axes(tmp_path, voxels, write_nifti):
    assert read_volume(write_nifti(tmp_path / "a.nii.gz", voxels[..., None])).num_channels == 1
    assert read_volume(write_nifti(tmp_path / "b.nii.gz", np.stack([voxels] * 3, -1))).num_channels == 3
    assert read_volume(write_nifti(tmp_path / "c.nii.gz", voxels[:, :, :1])).spatial_shape == (13, 9, 1)
    message = refused(write_nifti(tmp_path / "d.nii.gz", voxels[..., None, None]))
    assert "at most one of channels, none of them empty; found shape (13, 9, 7, 1, 1)" in message


def test_case_names():
    assert case_name("/a/b/case_1.nii.gz") == "case_1"
    assert case_name("CASE.MHA") == "CASE"
    assert case_name("SC-01-0080.dcm.png") == "SC-01-0080.dcm"
    assert case_name("/a/series.1") == "series.1"


def test_displacement_is_taken_over_the_field_of_view():
    affine = np.eye(4)
    assert displacement_mm(affine, affine, (9, 9, 9)) == 0
    shifted = affine.copy()
    shifted[:3, 3] = [0, 3, 4]
    assert displacement_mm(affine, shifted, (9, 9, 9)) == pytest.approx(5)
    tilted = affine.copy()
    angle = 0.001  # every element within 1e-3
    tilted[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    assert displacement_mm(affine, tilted, (500, 500, 1)) == pytest.approx(499.5 * math.sqrt(2) * angle, rel=1e-3)
    assert displacement_mm(affine, shifted, (9, 9)) == pytest.approx(5)


def test_missing_and_unknown_files_are_refused(tmp_path):
    assert "nowhere.nii.gz: must exist; found nothing" in refused(tmp_path / "nowhere.nii.gz")
    (tmp_path / "notes.txt").write_text("hello")
    assert "or a DICOM folder; found the suffix '.txt'" in refused(tmp_path / "notes.txt")


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.mha", "a.nrrd", "a.png", "a.tif"])
def test_empty_files_and_text_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    assert f"{name}: must not be empty; found 0 bytes" in refused(tmp_path / name)
    (tmp_path / name).write_bytes(b"this is not an image\n" * 40)
    assert f"{name}: must open; found " in refused(tmp_path / name)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_truncated_volumes_are_refused(tmp_path, write_volume, suffix, share):
    array = np.random.default_rng(0).integers(-1000, 1000, (32, 32, 32)).astype(np.int16)
    path = write_volume(tmp_path, array, suffix)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    message = refused(path)
    assert ": must open; found " in message or "voxels that its header announces" in message


def test_a_truncated_gzip_stream_is_named(tmp_path, write_nifti):
    array = np.random.default_rng(0).integers(-1000, 1000, (32, 32, 32)).astype(np.int16)
    path = write_nifti(tmp_path / "a.nii.gz", array)
    path.write_bytes(path.read_bytes()[:-4])  # all voxels are there, the checksum is not
    assert "must open; found a gzip stream that is cut off (" in refused(path)


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".mhd", ".nrrd"])
@pytest.mark.parametrize("share", [0.4, 0.9])
def test_a_flipped_bit_is_refused(tmp_path, write_volume, suffix, share):
    array = np.random.default_rng(0).integers(-1000, 1000, (32, 32, 32)).astype(np.int16)
    path = write_volume(tmp_path, array, suffix)
    target = path.with_suffix(".zraw") if suffix == ".mhd" else path
    content = bytearray(target.read_bytes())
    content[int(share * len(content))] ^= 0x10
    target.write_bytes(content)
    assert ": must open; found " in refused(path)


@pytest.mark.parametrize(
    ("suffix", "found"),
    [
        (".png", "a part that is longer than the file: image file is truncated"),
        (".jpg", "image file is truncated"),
        (".tif", "6,000 bytes of pixels up to byte 6,140 of 5,640"),
    ],
)
def test_truncated_pictures_are_refused(tmp_path, suffix, found):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    assert f"a{suffix}: must open; found {found}" in refused(path)


def test_pages_are_refused(tmp_path):
    page = Image.fromarray(np.zeros((5, 6), np.uint8))
    page.save(tmp_path / "stack.tif", save_all=True, append_images=[page, page])
    assert "stack.tif: must hold one image; found 3 pages" in refused(tmp_path / "stack.tif")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_header_of_more_than_the_file_is_refused_without_allocating_it(tmp_path, affine, compressed):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float32)
    header.set_data_shape((30000, 30000, 30000))
    header.set_sform(affine, 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    header["pixdim"][1:4] = [0.8, 1.1, 3.0]
    path = tmp_path / ("huge.nii.gz" if compressed else "huge.nii")
    content = header.binaryblock + bytes(1000)
    path.write_bytes(gzip.compress(content) if compressed else content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = refused(path)
    assert "must hold the voxels that its header announces; found a header of 30000 x 30000 x 30000 voxels" in message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_a_huge_itk_header_is_refused_without_allocating_it(tmp_path, voxels, write_itk, suffix):
    path = write_itk(tmp_path / f"a{suffix}", voxels)
    content = path.read_bytes().replace(b"DimSize = 13 9 7", b"DimSize = 30000 30000 30000")
    path.write_bytes(content.replace(b"sizes: 13 9 7", b"sizes: 30000 30000 30000"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "found a header of 30000 x 30000 x 30000 voxels" in refused(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_gzip_stream_with_less_than_announced_is_refused(tmp_path, voxels, write_nifti):
    path = write_nifti(tmp_path / "a.nii", voxels)
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(path.read_bytes()[:1000]))
    assert "b.nii.gz: must open; found 1,000 of 1,990 bytes of voxels" in refused(tmp_path / "b.nii.gz")


def test_mhd_without_its_voxels_is_refused(tmp_path, voxels, write_itk):
    path = write_itk(tmp_path / "a.mhd", voxels)
    (tmp_path / "a.zraw").unlink()
    assert "a.mhd: must lie beside its voxels; found no file a.zraw. Remedy: put a.zraw" in refused(path)


def test_colors_per_voxel_are_refused(tmp_path, voxels, affine):
    colors = np.zeros(voxels.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colors, affine), tmp_path / "a.nii.gz")
    assert "must hold real numbers; found voxels of type [('R', 'u1')" in refused(tmp_path / "a.nii.gz")


def test_an_affine_without_inverse_is_refused(tmp_path, voxels):
    image = nib.Nifti1Image(voxels, None)
    image.header.set_sform(np.diag([1.0, 1.0, 0.0, 1.0]), 1)
    image.header["pixdim"][3] = 0
    nib.save(nib.Nifti1Image(voxels, None, image.header), tmp_path / "a.nii")
    assert "must have a voxel size above zero on three independent axes" in refused(tmp_path / "a.nii")
    image.header.set_sform(np.full((4, 4), np.nan), 1)
    nib.save(nib.Nifti1Image(voxels, None, image.header), tmp_path / "b.nii")
    assert "NaN or infinite numbers in the affine" in refused(tmp_path / "b.nii")


def test_sheared_affine_is_kept(tmp_path, voxels, affine):
    sheared = affine @ np.array([[1, 0.2, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(voxels, sheared), tmp_path / "a.nii.gz")
    np.testing.assert_allclose(read_volume(tmp_path / "a.nii.gz").affine, sheared, atol=1e-4)


@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (4, 1), (1, 2)])
def test_the_sform_wins_with_a_warning(tmp_path, voxels, affine, write_nifti, codes):
    qform = affine.copy()
    qform[0, 3] += 5
    volume = read_volume(write_nifti(tmp_path / "a.nii.gz", voxels, qform=qform, codes=codes))
    np.testing.assert_allclose(volume.affine, affine, atol=1e-4)
    assert volume.warnings[0].startswith("sform and qform place voxels up to 5 mm apart; the sform is used and written")


def test_no_orientation_is_a_warning(tmp_path, voxels, write_nifti):
    volume = read_volume(write_nifti(tmp_path / "a.nii.gz", voxels, codes=(0, 0)))
    assert volume.warnings[0].startswith("neither sform nor qform is set")


def test_a_voxel_size_that_contradicts_the_sform_is_refused(tmp_path, voxels, affine):
    image = nib.Nifti1Image(voxels, None)
    image.set_sform(affine, 1)
    image.header["pixdim"][1:4] = 1
    nib.save(image, tmp_path / "a.nii.gz")
    message = refused(tmp_path / "a.nii.gz")
    assert "must give one voxel size; found 1 x 1 x 1 mm as pixdim, 0.8 x 1.1 x 3 mm in the sform" in message


def test_dicom_folder_without_series_is_refused(tmp_path):
    assert "must hold a DICOM series; found no DICOM file" in refused(tmp_path)


def test_dicom_beside_other_files_is_read(tmp_path, voxels, affine, write_dicom):
    folder = write_dicom(tmp_path / "a", voxels, affine)
    (folder / "README.txt").write_text("scanner notes")
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(10))
    np.testing.assert_array_equal(read_volume(folder).array, voxels)


@pytest.mark.parametrize("leave_out", [(1,), (3,), (5,)])
def test_a_missing_slice_is_refused(tmp_path, voxels, affine, write_dicom, leave_out):
    message = refused(write_dicom(tmp_path / "a", voxels, affine, leave_out=leave_out))
    k = leave_out[0]
    assert f"must be evenly spaced; found 6 mm between slice{k - 1:03d}.dcm and slice{k + 1:03d}.dcm" in message
    assert "3 mm elsewhere (6 slices)" in message


def test_doubled_slices_are_refused(tmp_path, voxels, affine, write_dicom):
    for prefix in ("a", "b"):
        write_dicom(tmp_path / "a", voxels, affine, series_uid="1.2.3", prefix=prefix)
    assert "must be evenly spaced; found " in refused(tmp_path / "a")


def test_two_series_in_a_folder_are_refused(tmp_path, voxels, affine, write_dicom):
    write_dicom(tmp_path / "a", voxels, affine, prefix="first")
    write_dicom(tmp_path / "a", voxels, affine, prefix="second")
    message = refused(tmp_path / "a")
    assert "must hold one DICOM series; found 2 (7 files from " in message
    assert "first000.dcm" in message
    assert "second000.dcm" in message


def test_a_scout_beside_the_series_is_refused(tmp_path, voxels, affine, write_dicom):
    write_dicom(tmp_path / "a", voxels, affine, series_uid="1.2.3")
    write_dicom(tmp_path / "a", voxels[:, :, :1], affine[:, [0, 2, 1, 3]], series_uid="1.2.3", prefix="scout")
    assert "must hold one DICOM series; found 2 (" in refused(tmp_path / "a")


def test_a_damaged_slice_is_refused(tmp_path, voxels, affine, write_dicom):
    folder = write_dicom(tmp_path / "a", voxels, affine)
    first = folder / "slice000.dcm"  # at the end of the stack, where no gap shows that it is missing
    first.write_bytes(first.read_bytes()[:-60])
    assert "slice000.dcm: must open; found an element of 234 bytes that the file does not hold" in refused(folder)


def test_a_single_slice_is_refused(tmp_path, voxels, affine, write_dicom):
    folder = write_dicom(tmp_path / "a", voxels[:, :, :1], affine)
    assert "must hold at least two slices; found one" in refused(folder)


def test_gantry_tilt_is_refused(tmp_path, voxels, affine, write_dicom):
    tilted = affine.copy()
    tilted[:3, 2] += affine[:3, 1] / 1.1 * 0.5  # every slice 0.5 mm further along the rows
    assert "found slices shifted by up to 3 mm in plane (gantry tilt)" in refused(
        write_dicom(tmp_path / "a", voxels, tilted)
    )


def test_a_problem_can_be_put_into_a_report(tmp_path):
    with pytest.raises(DatasetError) as caught:
        read_volume(tmp_path / "a.nii")
    assert json.dumps([str(problem) for problem in caught.value.problems])
