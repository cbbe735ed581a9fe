import pytest
import torch

from convlora import balance_loss
from convlora.adapter import ConvLoraLinear
from tests.adapter.models import adapted


@pytest.fixture(autouse=True)
def strict():
    torch._dynamo.reset()
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield


@pytest.mark.parametrize("routing", ["balanced", "learned", "random", 3])
@pytest.mark.parametrize("training", [False, True])
def test_the_layer_is_one_graph_that_fits_the_next_batch_too(routing, training):
    model = adapted(routing=routing).train(training)
    layer = next(module for module in model.modules() if isinstance(module, ConvLoraLinear))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for seed in (0, 1):
        x = torch.randn(3, 5, 5, 12, generator=torch.Generator().manual_seed(seed))
        torch.manual_seed(7)
        want = layer(x)
        torch.manual_seed(7)
        got = compiled(x)
        assert got.shape == want.shape
        if not training and routing != "random":  # a compiled graph draws its random numbers in another order
            torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
        if training:
            (got.sum() + balance_loss(model)).backward()
