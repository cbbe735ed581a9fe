import itertools
import json

import pytest
import torch
import torch.nn.functional as F
from peft import get_peft_model
from transformers import AutoModelForSemanticSegmentation

from convlora import ConvLoraConfig, SamForSemanticSegmentation
from convlora.adapter.saving import sealed
from convlora.errors import SettingsError
from convlora.sam import SamSegmentationImageProcessor, decoder
from convlora.sam.processing import class_probabilities, classes
from convlora.sam.queries import QueryMaskDecoder, class_scores, default_queries, spread
from convlora.sam.saving import load_segmenter, save_segmenter
from convlora.training.methods import apply_method
from convlora.training.settings import AdapterSettings
from tests.sam.models import small_sam
from tests.sam.test_modeling import huge

THREE = {0: "background", 1: "leaf", 2: "stem"}
BINARY = {0: "background", 1: "leaf"}


def model(id2label=THREE, **options):
    return SamForSemanticSegmentation.from_sam(small_sam(), id2label=id2label, head="queries", **options)


def inputs(images=2, num_labels=3, seed=0):
    """Noisy pictures of discs, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    labels = torch.zeros(images, 64, 64, dtype=torch.long)
    for label, number in itertools.product(labels, range(1, num_labels)):
        y, x = torch.randint(8, 56, (2,), generator=generator)
        label[(rows - y) ** 2 + (columns - x) ** 2 < 150] = number
    colours = torch.randn(num_labels, 3, generator=torch.Generator().manual_seed(7))
    return colours[labels].movedim(-1, 1) + 0.3 * torch.randn(images, 3, 64, 64, generator=generator), labels


@pytest.mark.parametrize(("num_labels", "count"), [(2, 10), (10, 10), (12, 12), (20, 20), (21, 100), (150, 150)])
def test_the_number_of_tokens_follows_the_number_of_classes(num_labels, count):
    assert default_queries(num_labels, 256) == count


def test_there_are_no_more_tokens_than_a_token_has_channels():
    many = dict(enumerate(map(str, range(25))))
    assert model(many).config.num_queries == 32 == default_queries(32, 32)
    with pytest.raises(SettingsError, match=r"head='queries' has room for 32 classes.*there are 33"):
        model(dict(enumerate(map(str, range(33)))))


def test_a_step_of_training_makes_no_scores_and_has_the_loss_of_evaluation():
    ours, (pixels, labels) = model(), inputs()
    want = ours.eval()(pixels, labels=labels)
    step = ours.train()(pixels, labels=labels)
    assert step.logits is None and torch.equal(step.loss, want.loss)
    assert torch.equal(ours(pixels).logits, want.logits)


@pytest.mark.parametrize(("id2label", "count"), [(THREE, 10), (BINARY, 10), (THREE, 4)])
def test_there_is_one_logit_per_class_and_a_loss_whose_gradient_reaches_every_parameter(id2label, count):
    ours = model(id2label, num_queries=None if count == 10 else count)
    assert ours.sam.mask_decoder.mask_tokens.weight.shape == (count, 32)
    pixels, labels = inputs(num_labels=len(id2label))
    out = ours(pixels, labels=labels)
    assert out.logits.shape == (2, len(id2label), 32, 32)
    out.loss.backward()
    assert [name for name, p in ours.named_parameters() if p.requires_grad and p.grad is None] == []


def test_a_batch_without_a_valid_pixel_still_gives_every_parameter_a_gradient():
    ours = model()
    loss = ours(inputs()[0], labels=torch.full((2, 64, 64), 255)).loss
    loss.backward()
    assert loss == 0
    assert [name for name, p in ours.named_parameters() if p.requires_grad and p.grad is None] == []


def test_ignored_labels_do_not_change_the_loss():
    ours, (pixels, labels) = model(), inputs()
    labels[:, :20] = 255
    other = labels.clone()
    other[:, :20] = 99
    want = ours(pixels, labels=labels).loss
    ours.config.semantic_loss_ignore_index = 99
    assert ours(pixels, labels=other).loss == want


def test_tokens_start_equally_far_from_sams_token_0_and_from_each_other():
    token = torch.randn(1, 32)
    tokens = spread(token, 10)
    torch.testing.assert_close((tokens - token).norm(dim=1), 2 * token.norm().expand(10))
    distances = torch.pdist(tokens)
    torch.testing.assert_close(distances, distances[0].expand_as(distances))
    assert torch.equal(tokens, spread(token, 10))


def test_the_rest_of_the_head_starts_as_sams_and_without_a_preferred_class():
    sam = small_sam()
    want = sam.mask_decoder.output_hypernetworks_mlps[0].state_dict()
    decoder = QueryMaskDecoder.from_sam(sam.mask_decoder, 5, 3)
    assert len(decoder.output_hypernetworks_mlps) == 1
    for name, value in decoder.output_hypernetworks_mlps[0].state_dict().items():
        assert torch.equal(value, want[name])
    masks, logits = decoder(torch.randn(2, 32, 8, 8), torch.randn(1, 32, 8, 8), torch.randn(1, 32, 1, 1))
    assert masks.shape == (2, 5, 32, 32) and logits.shape == (2, 5, 4) and not logits.any()


def test_with_sams_own_token_a_mask_is_sams_mask():
    sam, pixels = small_sam(), torch.randn(1, 3, 64, 64)
    decoder = QueryMaskDecoder.from_sam(sam.mask_decoder, 1, 2)
    decoder.mask_tokens.weight.data = sam.mask_decoder.mask_tokens.weight.data[:1]
    single = SamForSemanticSegmentation.from_sam(small_sam())
    with torch.no_grad():
        embeddings = sam.get_image_embeddings(pixels)
        dense = sam.prompt_encoder.no_mask_embed.weight[..., None, None]
        masks, _ = decoder(embeddings, sam.get_image_wide_positional_embeddings(), dense)
        torch.testing.assert_close(masks, single(pixels).logits, rtol=1e-5, atol=1e-5)


def train(ours, steps=40):
    """Losses of the head alone on four images."""
    pixels, labels = inputs(images=4)
    with torch.no_grad():
        embeddings = {"prefix_states": ours.sam.vision_encoder(pixels).last_hidden_state, "prefix_blocks": 2}
    optimizer = torch.optim.AdamW(ours.sam.mask_decoder.parameters(), 2e-3)
    losses = []
    for _ in range(steps):
        loss = ours(**embeddings, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def decoded(ours):
    """Mask logits and class logits of the four images."""
    outputs = []
    hook = ours.sam.mask_decoder.register_forward_hook(lambda module, given, output: outputs.append(output))
    with torch.no_grad():
        ours(inputs(images=4)[0])
    hook.remove()
    return outputs[0]


@pytest.fixture(scope="module")
def trained():
    """A model after some steps, and their losses."""
    ours = model()
    return ours, train(ours)


def test_equal_tokens_make_equal_masks_and_learn_worse(trained, monkeypatch):
    apart = model()
    monkeypatch.setattr(decoder, "_SPREAD", 0.0)
    alike = model()
    assert decoded(apart)[0].std(dim=1).mean() > 1000 * decoded(alike)[0].std(dim=1).mean()
    ours, theirs = trained[1], train(alike)
    assert min(ours[-5:]) < 0.5 * ours[0]
    assert min(ours[-5:]) < 0.8 * min(theirs[-5:])


def test_class_scores_are_the_papers_sums():
    masks, logits = 3 * torch.randn(2, 5, 4, 6), torch.randn(2, 5, 4)
    sums = torch.zeros(2, 3, 4, 6)
    for image, query, number in itertools.product(range(2), range(5), range(3)):
        probability = logits[image, query].exp() / logits[image, query].exp().sum()
        sums[image, number] += probability[number] / (1 + (-masks[image, query]).exp())
    scores = class_scores(masks, logits)
    torch.testing.assert_close(scores.exp(), sums)
    assert torch.equal(classes(scores[0]), sums[0].argmax(0))
    torch.testing.assert_close(class_probabilities(scores[0]), sums[0] / sums[0].sum(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_class_scores_are_finite_float32_for_extreme_logits_and_under_autocast(dtype):
    masks, logits = torch.full((1, 2, 3, 3), -3e4, dtype=dtype), torch.full((1, 2, 4), -3e4, dtype=dtype)
    logits[0, 0, 3] = 3e4
    scores = class_scores(masks, logits)
    assert scores.dtype == torch.float32 and scores.isfinite().all()
    masks, logits = torch.randn(1, 2, 3, 3, dtype=dtype), torch.randn(1, 2, 4, dtype=dtype)
    with torch.autocast("cpu", torch.bfloat16):
        got = class_scores(masks, logits)
    assert torch.equal(got, class_scores(masks, logits))


def enlarged(maps):
    return F.interpolate(maps, scale_factor=4, mode="bilinear", align_corners=False)


def test_two_complementary_masks_give_the_classes_of_the_papers_order_of_interpolation():
    mask = 5 * torch.randn(2, 1, 8, 8)
    masks, logits = torch.cat([mask, -mask], dim=1), torch.tensor([[[4.0, -4, 0], [-4, 4, 0]]]).expand(2, -1, -1)
    ours = class_scores(masks, 20 * logits)
    torch.testing.assert_close(ours[:, 0] - ours[:, 1], mask[:, 0], rtol=1e-4, atol=1e-4)
    assert torch.equal(enlarged(ours).argmax(1), class_scores(enlarged(masks), 20 * logits).argmax(1))


def test_a_trained_model_gives_nearly_the_classes_of_the_papers_order_of_interpolation(trained):
    masks, predicted = decoded(trained[0])
    ours, theirs = enlarged(class_scores(masks, predicted)), class_scores(enlarged(masks), predicted)
    assert len(theirs.argmax(1).unique()) > 1
    assert (ours.argmax(1) == theirs.argmax(1)).float().mean() > 0.98  # borders of masks of 32 x 32


def test_the_trainable_counts_of_vit_huge_follow_from_the_papers():
    config = ConvLoraConfig(r=3, num_experts=8, target_modules=["qkv"], modules_to_save=["mask_decoder"])
    with torch.device("meta"):
        ours = get_peft_model(
            huge(id2label={i: str(i) for i in range(12)}, head="queries", num_queries=10, loss="set"), config
        )
    trainable = sum(p.numel() for p in ours.parameters() if p.requires_grad)
    # the paper's binary model, nine tokens more, and a classifier of 12 classes and "no object"
    assert trainable == 4_020_096 + 9 * 256 + (256 + 1) * (12 + 1)


def test_a_saved_segmenter_loads_to_the_same_answer_also_through_the_auto_class(tmp_path):
    ours = model(num_queries=5).eval()
    with torch.no_grad():
        ours.sam.mask_decoder.class_predictor.weight.normal_()
    ours.save_pretrained(tmp_path)
    pixels = inputs()[0]
    for loader in (SamForSemanticSegmentation, AutoModelForSemanticSegmentation):
        loaded = loader.from_pretrained(tmp_path).eval()
        assert torch.equal(loaded(pixels).logits, ours(pixels).logits)
        assert (loaded.config.head, loaded.config.num_queries, loaded.config.loss) == ("queries", 5, "set")
    with pytest.raises(SettingsError, match="was saved with head='queries', not 'classes'"):
        SamForSemanticSegmentation.from_pretrained(tmp_path, head="classes")
    with pytest.raises(SettingsError, match="was saved with num_queries=5, not 7"):
        SamForSemanticSegmentation.from_pretrained(tmp_path, num_queries=7)


@pytest.fixture
def tuned(workspace):
    """An adapted segmenter with weights unlike those at its start, and its processor."""
    base = SamForSemanticSegmentation.from_pretrained(workspace / "sam", id2label=THREE, head="queries", num_queries=6)
    ours = apply_method(base, "conv-lora", AdapterSettings(r=2, num_experts=2)).eval()
    with torch.no_grad():
        for parameter in ours.parameters():
            if parameter.requires_grad:
                parameter += 0.02 * torch.randn_like(parameter)
    return ours, SamSegmentationImageProcessor.from_sam(workspace / "sam")


def test_an_adapter_brings_its_head_along(tuned, tmp_path):
    ours, processor = tuned
    save_segmenter(ours, processor, tmp_path)
    torch.manual_seed(123)
    loaded, _ = load_segmenter(tmp_path)
    pixels = inputs()[0]
    with torch.inference_mode():
        assert torch.equal(loaded(pixel_values=pixels).logits, ours(pixel_values=pixels).logits)
    assert 'head="queries", num_queries=6)' in (tmp_path / "README.md").read_text()


def test_an_adapter_saved_when_there_was_one_head_still_loads(workspace, tmp_path):
    base = SamForSemanticSegmentation.from_pretrained(workspace / "sam", id2label=THREE)
    ours = apply_method(base, "decoder", AdapterSettings())
    save_segmenter(ours, SamSegmentationImageProcessor.from_sam(workspace / "sam"), tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for name in ("head", "num_queries"):
        del manifest["metadata"][name]
    (tmp_path / "manifest.json").write_text(json.dumps(sealed(manifest)))
    assert load_segmenter(tmp_path)[0].get_base_model().config.head == "classes"
    assert "head=" not in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "boxes"}, "head='boxes' must be one of classes, queries"),
        ({"head": "queries", "loss": "dice-ce"}, "head='queries' cannot be trained with loss='dice-ce'"),
        ({"loss": "set"}, "head='classes' cannot be trained with loss='set'"),
        ({"num_queries": 5}, "num_queries=5 is for head='queries'"),
        ({"head": "queries", "num_queries": 0}, "num_queries=0 must be between 1 and 32"),
        ({"head": "queries", "num_queries": 5.0}, "num_queries=5.0 must be between 1 and 32"),
        ({"head": "queries", "num_queries": 33}, "num_queries=33 must be between 1 and 32"),
    ],
)
def test_heads_losses_and_numbers_that_do_not_fit_are_refused(options, message):
    with pytest.raises(SettingsError, match=message):
        SamForSemanticSegmentation.from_sam(small_sam(), id2label=THREE, **options)
