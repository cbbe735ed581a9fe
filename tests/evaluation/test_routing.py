import numpy as np
import pytest

from convlora.adapter import ConvLoraLinear
from convlora.evaluation.routing import chosen_scales
from convlora.inference.predictor import Predictor


@pytest.fixture(scope="module")
def predictor(finished):
    return Predictor.from_folder(finished.path)


def image(seed=0):
    return np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)


def test_windowed_blocks_have_a_grid_and_global_blocks_one_choice(predictor):
    choices = chosen_scales(predictor, image())
    assert [(choice.layer, choice.module, choice.scales.shape) for choice in choices] == [
        (0, "attn.qkv", (3, 3)),  # 8 tokens a side in windows of 3
        (1, "attn.qkv", (1, 1)),
    ]
    assert all(1 <= scale <= 8 for choice in choices for scale in choice.scales.flat)


@pytest.mark.parametrize(("row", "column"), [(1, 2), (2, 0), (0, 1)])
def test_a_change_inside_a_window_changes_that_window_alone(predictor, row, column):
    """Before the first attention a window sees its own 24 pixels a side only."""
    before = chosen_scales(predictor, image())[0].scales
    differed = False
    for seed in range(1, 30):
        changed = image()
        place = (slice(24 * row, 24 * row + 24), slice(24 * column, 24 * column + 24))
        changed[place] = image(seed)[place] // (1 + seed % 4)
        different = chosen_scales(predictor, changed)[0].scales != before
        if different.any():
            differed = True
            np.testing.assert_array_equal(np.argwhere(different), [[row, column]])
    assert differed


def test_scales_are_those_of_the_chosen_experts_not_their_numbers(predictor):
    choices = chosen_scales(predictor, image(3))
    modules = [module for module in predictor.model.modules() if isinstance(module, ConvLoraLinear)]
    for choice, module in zip(choices, modules, strict=True):
        (name,) = module.active_adapters
        index = module.routing[name].index.tolist()
        assert [module.conv_lora[name].scales[i] for i in index] == choice.scales.ravel().tolist()


def test_two_adapted_layers_a_block_are_told_apart(workspace, tmp_path):
    from convlora.evaluation.figures import routing_maps, routing_shares
    from convlora.training.run import train
    from convlora.training.settings import AdapterSettings
    from tests.training.runs import quick_settings

    adapter = AdapterSettings(target_modules=["qkv", "proj"], num_experts=2)
    run = train(quick_settings(workspace, tmp_path / "run", max_steps=1, adapter=adapter))
    choices = chosen_scales(Predictor.from_folder(run.path), image())
    assert [(choice.layer, choice.module) for choice in choices] == [
        (0, "attn.qkv"),
        (0, "attn.proj"),
        (1, "attn.qkv"),
        (1, "attn.proj"),
    ]
    assert routing_maps(choices, (1, 2)).startswith("<svg") and routing_shares([choices], (1, 2)).startswith("<svg")


@pytest.mark.parametrize(("routing", "shown"), [("soft-token", True), ("sum", False)])
def test_a_mixture_over_whole_images_is_shown_by_its_largest_share_and_a_sum_is_not_shown(
    workspace, tmp_path, routing, shown
):
    from convlora.evaluation.evaluate import evaluate
    from convlora.evaluation.settings import EvaluateSettings
    from convlora.training.run import train
    from convlora.training.settings import AdapterSettings
    from tests.training.runs import quick_settings

    adapter = AdapterSettings(routing=routing, context="image", num_experts=3, kernel_size=1, residual=False)
    run = train(quick_settings(workspace, tmp_path / "run", max_steps=2, adapter=adapter, train_images=2))
    assert len(run.read_split().samples["train"]) == 2
    evaluation = evaluate(EvaluateSettings(run=str(run.path), device="cpu"))
    assert evaluation.result.has_experts == shown
    if shown:
        choices = chosen_scales(evaluation.result.predictor, image())
        assert [choice.scales.shape for choice in choices] == [(1, 1), (1, 1)]
        assert all(choice.scales.item() in (1, 2, 3) for choice in choices)
