import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from convlora.adapter.experts import _bicubic_matrix, apply_experts
from tests.adapter import oracle

SCALES = tuple(range(1, 9))


def experts(r=3, count=8, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(count, r, r, 3, 3, generator=generator, dtype=dtype) / 3
    return weight.requires_grad_(), torch.randn(count, r, generator=generator, dtype=dtype).requires_grad_()


@pytest.mark.parametrize("grid", [(14, 14), (1, 1), (2, 3), (5, 1), (9, 13)])
@pytest.mark.parametrize("scale", SCALES)
def test_each_scale_equals_the_upsampling_formulation(scale, grid):
    weight, bias = experts(count=1)
    z = torch.randn(4, 3, *grid, dtype=torch.float64)
    got = apply_experts(z, weight, bias, torch.zeros(4, dtype=torch.long), (scale,))
    # float64 throughout, so only rounding remains: hundreds of operations of size ~10 at 1e-16
    torch.testing.assert_close(got, oracle.expert(z, weight[0], bias[0], scale), rtol=0, atol=1e-12)


@pytest.mark.parametrize("grid", [(8, 8), (4, 7)])
def test_mixed_routing_equals_one_expert_after_the_other_with_all_gradients(grid):
    weight, bias = experts()
    index = torch.tensor([7, 0, 3, 3, 1, 5, 2, 6, 4, 0])
    z = torch.randn(10, 3, *grid, dtype=torch.float64, requires_grad=True)
    seed = torch.randn(10, 3, *grid, dtype=torch.float64)
    got = torch.autograd.grad((apply_experts(z, weight, bias, index, SCALES) * seed).sum(), (z, weight, bias))
    want = torch.autograd.grad((oracle.mixture(z, weight, bias, index, SCALES) * seed).sum(), (z, weight, bias))
    for mine, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-11)


def test_gradients_agree_with_finite_differences():
    weight, bias = experts(r=2, count=4)
    z = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([1, 3])
    assert torch.autograd.gradcheck(lambda *a: apply_experts(*a, index, (1, 2, 3, 4)), (z, weight, bias))


def test_an_expert_that_nobody_chose_still_gets_a_gradient_of_zero():
    weight, bias = experts()
    z = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    apply_experts(z, weight, bias, torch.tensor([1, 1]), SCALES).sum().backward()
    assert weight.grad is not None and weight.grad[1].abs().sum() > 0
    assert weight.grad[[0, 2, 3, 4, 5, 6, 7]].abs().sum() == 0


def test_no_tensor_is_larger_than_four_times_the_grid_in_each_direction():
    weight, bias = experts(dtype=torch.float32)
    z = torch.randn(1, 3, 16, 16)
    sizes = []

    class Record(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.extend(t.numel() for t in (out if isinstance(out, tuple | list) else [out]) if torch.is_tensor(t))
            return out

    apply_experts(z, weight, bias, torch.tensor([7]), SCALES)  # fill the cache of tables
    with Record():
        apply_experts(z, weight, bias, torch.tensor([7]), SCALES)
    assert max(sizes) <= 3 * (4 * 16) ** 2  # the up-sampled map would hold 3 · (8·16)²


def test_an_empty_batch_gives_an_empty_batch():
    weight, bias = experts()
    z = torch.zeros(0, 3, 4, 4, dtype=torch.float64)
    assert apply_experts(z, weight, bias, torch.zeros(0, dtype=torch.long), SCALES).shape == z.shape


@pytest.mark.parametrize("scale", SCALES)
def test_the_bicubic_matrix_is_torchs_interpolation(scale):
    z = torch.randn(1, 1, 11, 1, dtype=torch.float64)
    up = torch.nn.functional.interpolate(z, size=(11 * scale, 1), mode="bicubic", align_corners=False)
    torch.testing.assert_close(_bicubic_matrix(11, scale) @ z[0, 0], up[0, 0], rtol=0, atol=1e-13)


def test_tracing_with_fake_tensors_leaves_no_fake_table_behind():
    weight, bias = experts(dtype=torch.float32)
    with FakeTensorMode(allow_non_fake_inputs=True):
        apply_experts(torch.randn(1, 3, 31, 31), weight.detach(), bias.detach(), torch.tensor([2]), SCALES)
    out = apply_experts(torch.randn(1, 3, 31, 31), weight, bias, torch.tensor([2]), SCALES)
    assert type(out) is torch.Tensor and out.sum().isfinite()


def test_tables_made_under_inference_mode_can_be_trained_with_later():
    weight, bias = experts(dtype=torch.float32)
    z = torch.randn(1, 3, 23, 23, requires_grad=True)
    with torch.inference_mode():
        apply_experts(z, weight, bias, torch.tensor([2]), SCALES)
    apply_experts(z, weight, bias, torch.tensor([2]), SCALES).sum().backward()
    assert z.grad is not None
