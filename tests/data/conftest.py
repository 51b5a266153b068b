"""Volumes and DICOM series that the tests of `common.data` write."""

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from scipy.spatial.transform import Rotation


@pytest.fixture
def affine():
    """Oblique, anisotropic, RAS mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", [10, -20, 30], degrees=True).as_matrix() @ np.diag([0.8, 1.1, 3.0])
    matrix[:3, 3] = [-50, 20, 300]
    return matrix


@pytest.fixture
def voxels():
    """CT-like, three different sizes, none even."""
    return np.random.default_rng(0).integers(-1000, 1500, (13, 9, 7)).astype(np.int16)


@pytest.fixture
def write_nifti(affine):
    """Write a NIfTI file with sform and qform."""

    def write(path, array, sform=affine, qform=None, codes=(1, 1)):
        path.parent.mkdir(parents=True, exist_ok=True)
        image = nib.Nifti1Image(array, sform)
        image.set_sform(sform, codes[0])
        image.set_qform(sform if qform is None else qform, codes[1])
        nib.save(image, path)
        return path

    return write


@pytest.fixture
def write_dicom():
    """Write one DICOM file a slice."""

    def write(folder, array, affine_ras, series_uid=None, leave_out=(), prefix="slice"):
        folder.mkdir(parents=True, exist_ok=True)
        series_uid, study_uid = series_uid or generate_uid(), generate_uid()
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_ras
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        axes = lps[:3, :3] / spacing
        for k in range(array.shape[2]):
            if k in leave_out:
                continue
            data = Dataset()
            data.file_meta = FileMetaDataset()
            data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
            data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
            data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
            data.Modality, data.PatientID, data.PatientName = "CT", "phantom", "phantom"
            data.SeriesInstanceUID, data.StudyInstanceUID = series_uid, study_uid
            data.SeriesDate, data.SeriesNumber, data.InstanceNumber = "20200101", 1, k + 1
            data.ImagePositionPatient = [round(x, 6) for x in (lps @ [0, 0, k, 1])[:3].tolist()]
            data.ImageOrientationPatient = [round(x, 8) for x in (*axes[:, 0].tolist(), *axes[:, 1].tolist())]
            data.PixelSpacing, data.SliceThickness = [float(spacing[1]), float(spacing[0])], float(spacing[2])
            data.Columns, data.Rows = array.shape[:2]
            data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
            data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
            data.RescaleSlope, data.RescaleIntercept = 1, -1024
            data.PixelData = np.ascontiguousarray(array[:, :, k].T + 1024).astype(np.int16).tobytes()
            pydicom.dcmwrite(folder / f"{prefix}{k:03d}.dcm", data, enforce_file_format=True)
        return folder

    return write


@pytest.fixture
def write_itk(affine):
    """Write a file through ITK, compressed, in the geometry of `affine`."""

    def write(path, array, affine_ras=affine, compression=True):
        import itk

        path.parent.mkdir(parents=True, exist_ok=True)
        lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine_ras
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image = itk.image_from_array(np.ascontiguousarray(array.T))
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / spacing)))
        itk.imwrite(image, str(path), compression=compression)
        return path

    return write


@pytest.fixture
def write_volume(write_nifti, write_itk, write_dicom, affine):
    """Write the same oblique volume in any 3D format, and return its path."""

    def write(folder, array, suffix):
        if suffix == "dicom":
            return write_dicom(folder / "series", array, affine)
        writer = write_nifti if suffix.startswith(".nii") else write_itk
        return writer(folder / f"volume{suffix}", array)

    return write
