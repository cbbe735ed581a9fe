import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from convlora.data.scientific.intensity import as_bytes, looks_like_ct, resolved, stack_windows
from convlora.data.scientific.nifti import open_nifti
from convlora.data.scientific.parts import StackImage
from convlora.data.scientific.windows import CT_WINDOWS, Window, given_window, intensity_problem
from convlora.data.settings import DataSettings, ImageLimits
from tests.data.scientific.makers import ramp, save_nifti, through

LIMITS = ImageLimits()


def test_windows_of_ct_are_those_of_the_literature():
    centres = {"lung": (-600, 1500), "mediastinum": (50, 350), "soft-tissue": (40, 400), "liver": (30, 150)}
    centres |= {"brain": (40, 80), "bone": (400, 1800)}
    assert {name: (sum(w) / 2, w.high - w.low) for name, w in CT_WINDOWS.items()} == centres
    assert given_window("-160,240") == CT_WINDOWS["soft-tissue"] == (-160, 240)


@pytest.mark.parametrize("rule", ["", "lungs", "1", "1,2,3", "a,b", "2,1", "1,1", "nan,1", "0,inf", "1e400,1e401", ","])
def test_rules_that_mean_nothing_are_refused(rule):
    assert "must be one of auto, percentile, full, lung" in intensity_problem(rule)
    assert DataSettings(images="x", intensity=rule).problems()


@pytest.mark.parametrize("rule", ["auto", "percentile", "full", "bone", "-160,240", "0.5, 1e3"])
def test_rules_that_can_be_used(rule):
    assert intensity_problem(rule) is None and not DataSettings(images="x", intensity=rule).problems()


@given(
    values=hnp.arrays(st.sampled_from(["u1", "u2", "i2", "i4", "f4", "f8"]), hnp.array_shapes(min_dims=3, max_dims=3)),
    low=st.floats(-1e4, 1e4),
    width=st.floats(1e-2, 1e5),
)
def test_a_window_is_what_its_definition_says(values, low, width):
    got = as_bytes(values, [Window(low, low + width)] * values.shape[2])
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = (values.astype(np.float64) - low) / width * 255
        want = np.where(np.isnan(scaled), 0, scaled).clip(0, 255)
    assert got.dtype == np.uint8 and np.abs(got - want).max() <= 0.5 + 1e-6


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2"])
def test_the_quick_way_for_large_pictures_gives_the_same(dtype):
    values = ramp((300, 200, 2), dtype)
    windows = [Window(-20.5, 99.25), Window(3, 30_000)]
    want = np.stack([through(values[..., c], *windows[c]) for c in range(2)], axis=-1)
    np.testing.assert_array_equal(as_bytes(values, windows), want)


def test_what_is_no_number_or_infinite_is_black_or_white():
    values = np.array([[[np.nan], [np.inf], [-np.inf], [5.0]]])
    assert as_bytes(values, [Window(0, 10)]).ravel().tolist() == [0, 255, 0, 128]


def volume(path, values):
    return open_nifti(save_nifti(path, values), LIMITS)


def test_ct_is_recognised_by_its_values_and_mr_pet_and_normalised_volumes_are_not(tmp_path):
    rng = np.random.default_rng(0)
    body = rng.normal(50, 60, (30, 30, 10))
    ct = np.where(rng.random(body.shape) < 0.4, -1000, body)
    kinds = {
        "ct": (ct.astype(np.int16), True),
        "ct padded": (np.where(rng.random(body.shape) < 0.2, -3024, ct).astype(np.int16), True),
        "ct float": (ct.astype(np.float32), True),
        "ct without air": (np.where(rng.random(body.shape) < 0.2, -105, body).astype(np.int16), True),
        "mr": (np.abs(body * 8).astype(np.int16), False),
        "mr with ringing": ((np.abs(body * 8) - 20).astype(np.int16), False),
        "normalised": (((body - 50) / 60).astype(np.float32), False),
        "scaled": ((ct / 1000).astype(np.float32), False),
        "pet": (np.abs(body / 10).astype(np.float32), False),
        "8 bits": (ct.clip(-128, 127).astype(np.int8), False),
        "nothing": (np.full((4, 4, 4), np.nan, dtype=np.float32), False),
    }
    for name, (values, is_ct) in kinds.items():
        stack = volume(tmp_path / f"{name}.nii", values)
        assert stack.in_hounsfield_units(LIMITS) == is_ct, name
        assert resolved(stack, "auto", LIMITS) == ("soft-tissue" if is_ct else "percentile"), name
    assert not looks_like_ct(np.zeros((0, 1)))


@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_a_constant_volume_is_black_and_one_with_a_speck_shows_it(tmp_path, dtype):
    values = np.full((20, 20, 3), 7, dtype=dtype)
    assert not StackImage(volume(tmp_path / "a.nii", values), 1).read_image(LIMITS).any()
    values[3, 4, 1] = 9
    picture = StackImage(volume(tmp_path / "b.nii", values), 1).read_image(LIMITS)
    assert picture.max() == 255 and np.count_nonzero(picture) == 3


def test_a_window_is_looked_for_once_and_again_if_the_file_changes(tmp_path, monkeypatch):
    from convlora.data.scientific.nifti import NiftiVolume

    looked = []
    real = NiftiVolume.sample
    monkeypatch.setattr(NiftiVolume, "sample", lambda self, limits: looked.append(self.path) or real(self, limits))
    stack = volume(tmp_path / "a.nii", ramp((9, 9, 9), np.uint16))
    windows = {stack_windows(stack, "percentile", LIMITS) for _ in range(5)}
    assert len(windows) == 1 and len(looked) == 1
    again = volume(tmp_path / "a.nii", ramp((9, 9, 9), np.uint16, seed=1)[..., :9] // 2)
    assert stack_windows(again, "percentile", LIMITS) not in windows and len(looked) == 2
