"""Small scientific files of known content, without symmetries, for the tests of this folder."""

import numpy as np

L2A = {"EPSG:32616": (0.5, 0.0, 733601.0, 0.0, -0.5, 3725139.0)}


def ramp(shape, dtype, seed=0):
    """Values over the range of a type that no flip or transpose leaves as they are."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.4
    if dtype.kind == "f":
        return (rng.random(shape) * 2000 - 500).astype(dtype)
    low, high = (max(np.iinfo(dtype).min, -(2**31)), min(np.iinfo(dtype).max, 2**31 - 1))
    return rng.integers(low, high, shape, dtype=np.int64, endpoint=True).astype(dtype)


def through(values, low, high):
    """What a window gives, by the definition."""
    scaled = (values.astype(np.float64) - low) / (high - low) * 255
    return np.rint(np.clip(np.nan_to_num(scaled, nan=0), 0, 255)).astype(np.uint8)


def percentile_window(values):
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return np.percentile(finite.astype(np.float64), (0.5, 99.5))


def save_nifti(path, canonical, codes="RAS", *, spacing=(1.0, 2.0, 3.0), slope=None, inter=None, dtype=None):
    """A volume given in RAS, stored with other axes and directions; its affine says which."""
    import nibabel as nib

    path.parent.mkdir(parents=True, exist_ok=True)
    target = nib.orientations.axcodes2ornt(codes)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), target)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = (-7, 11, 13)
    stored = nib.orientations.apply_orientation(canonical, turn)
    affine = affine @ nib.orientations.inv_ornt_aff(turn, canonical.shape[:3])
    image = nib.Nifti1Image(stored.astype(dtype or canonical.dtype), affine)
    image.header.set_data_dtype(dtype or canonical.dtype)
    if slope is not None:
        image.header.set_slope_inter(slope, inter)
        raw = nib.Nifti1Image(stored, affine, image.header)
        raw.header.set_slope_inter(1, 0)
        raw.to_filename(path)
        _set_slope(path, slope, inter)
        return path
    image.to_filename(path)
    return path


def _set_slope(path, slope, inter):
    import gzip
    import struct

    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as stream:
        content = bytearray(stream.read())
    content[112:120] = struct.pack("<ff", slope, inter)
    with opener(path, "wb") as stream:
        stream.write(bytes(content))


def radiological(canonical):
    """Axial slices (z, row, column) of a volume in RAS, as the documentation says: front on top, right on the left."""
    return canonical[::-1, ::-1].transpose(2, 1, 0)


def save_geotiff(path, bands, *, crs="EPSG:32616", transform=None, **profile):
    """Bands (C, H, W)."""
    import rasterio
    from rasterio.transform import Affine

    path.parent.mkdir(parents=True, exist_ok=True)
    count, height, width = bands.shape
    affine = Affine(*(transform or L2A["EPSG:32616"]))
    settings = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": bands.dtype.name}
    with rasterio.open(path, "w", **settings, crs=crs, transform=affine, **profile) as dataset:
        dataset.write(bands)
    return path


def dicom_dataset(stored, *, position=(0.0, 0.0, 0.0), direction=(1, 0, 0, 0, 1, 0), number=1, series="1.2.3", **more):
    """A data set with pixels (H, W), (H, W, 3) or (frames, H, W)."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = more.get("SOPClassUID", "1.2.840.10008.5.1.4.1.1.2")
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, str(number), str(position)])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID, header.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    header.SeriesInstanceUID, header.StudyInstanceUID = series, "1.2"
    header.FrameOfReferenceUID, header.PatientID, header.PatientName = "1.2.9", "p", "p"
    header.PatientBirthDate = header.PatientSex = header.StudyID = header.AccessionNumber = ""
    header.StudyDate = header.StudyTime = header.ReferringPhysicianName = ""
    header.Modality, header.InstanceNumber, header.SeriesNumber = "CT", number, 1
    colour = stored.ndim == 3 and stored.shape[-1] == 3
    header.Rows, header.Columns = stored.shape[:2] if colour else stored.shape[-2:]
    if stored.ndim == 3 and not colour:
        header.NumberOfFrames = len(stored)
    header.SamplesPerPixel = 3 if colour else 1
    header.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        header.PlanarConfiguration = 0
    bits = 8 * stored.dtype.itemsize
    header.BitsAllocated, header.BitsStored, header.HighBit = bits, bits, bits - 1
    header.PixelRepresentation = int(stored.dtype.kind == "i")
    if position is not None:
        header.ImagePositionPatient, header.ImageOrientationPatient = list(position), list(direction)
        header.PixelSpacing, header.SliceThickness = [2.0, 1.0], 3.0
    for name, value in more.items():
        setattr(header, name, value)
    header.PixelData = np.ascontiguousarray(stored).tobytes()
    if len(header.PixelData) % 2:
        header.PixelData += b"\0"
    return header


def save_dicom(path, stored, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    dicom_dataset(stored, **settings).save_as(path, enforce_file_format=True)
    return path


def save_series(folder, slices, *, order=None, spacing=3.0, suffix=".dcm", **settings):
    """Slices (z, H, W), the first at the feet, in files whose names and numbers say nothing of that."""
    order = np.random.default_rng(1).permutation(len(slices)) if order is None else order
    for number, z in enumerate(order.tolist()):
        name = f"IM{number:03d}{suffix}"
        save_dicom(folder / name, slices[z], position=(5.0, -7.0, 100 + spacing * z), number=number + 1, **settings)
    return folder
