"""The backbones: sizes and names as published, what their layers compute, and what can be done with them."""

import io
from itertools import product

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from ubhpd.core.errors import UbhpdError  # noqa: E402
from ubhpd.nn.backbones import BACKBONES, backbone  # noqa: E402
from ubhpd.nn.resnets import (  # noqa: E402  # noqa: E402
    Attention,
    AttentionBlock,
    BasicBlock,
    Bottle2neck,
    Bottleneck,
    resnet,
)
from ubhpd.nn.small_backbones import (  # noqa: E402
    EfficientNetB0,
    InvertedResidual,
    MBConv,
    RepVGGB1g2,
    RepVGGBlock,
    SameConv2d,
    Stage,
    StochasticDepth,
)

# With 1000 classes: torchvision's num_params; for Res2Net and RepVGG what the authors and MMPretrain print, in
# millions. The second number is the count of entries of the published state dict.
PUBLISHED = {
    "resnet18": (11_689_512, 122),
    "resnet34": (21_797_672, 218),
    "resnet50": (25_557_032, 320),
    "resnet101": (44_549_160, 626),
    "resnet152": (60_192_808, 932),
    "vgg16": (138_357_544, 32),
    "vgg16_bn": (138_365_992, 97),
    "alexnet": (61_100_840, 16),
    "mobilenet_v2": (3_504_872, 314),
    "efficientnet_b0": (5_288_548, 360),
}
PUBLISHED_MILLIONS = {"res2net101": 45.23, "repvgg_b1g2": 45.78}

# A few names of the published weights, and their shapes.
NAMES = {
    "resnet18": {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_var": (64,),
        "layer1.1.conv2.weight": (64, 64, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer4.0.downsample.1.num_batches_tracked": (),
        "fc.weight": (1000, 512),
    },
    "resnet50": {
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer3.5.conv2.weight": (256, 256, 3, 3),
        "layer4.2.bn3.bias": (2048,),
        "fc.bias": (1000,),
    },
    "res2net101": {
        "conv1.0.weight": (32, 3, 3, 3),
        "conv1.6.weight": (64, 32, 3, 3),
        "layer1.0.conv1.weight": (104, 64, 1, 1),
        "layer1.0.convs.2.weight": (26, 26, 3, 3),
        "layer1.0.downsample.1.weight": (256, 64, 1, 1),
        "layer3.22.bns.0.running_mean": (104,),
        "layer4.2.conv3.weight": (2048, 832, 1, 1),
    },
    "botnet101": {
        "layer3.22.conv1.weight": (256, 1024, 1, 1),
        "layer4.net.0.shortcut.0.weight": (2048, 1024, 1, 1),
        "layer4.net.0.net.3.to_qkv.weight": (1536, 512, 1, 1),
        "layer4.net.2.net.3.pos_emb.rel_height": (13, 128),
        "layer4.net.2.net.7.weight": (2048, 512, 1, 1),
    },
    "vgg16": {
        "features.0.weight": (64, 3, 3, 3),
        "features.28.bias": (512,),
        "classifier.0.weight": (4096, 25088),
        "classifier.3.weight": (4096, 4096),
        "classifier.6.weight": (1000, 4096),
    },
    "vgg16_bn": {"features.40.weight": (512, 512, 3, 3), "features.41.running_mean": (512,)},
    "alexnet": {
        "features.0.weight": (64, 3, 11, 11),
        "features.10.weight": (256, 256, 3, 3),
        "classifier.1.weight": (4096, 9216),
        "classifier.4.bias": (4096,),
        "classifier.6.weight": (1000, 4096),
    },
    "mobilenet_v2": {
        "features.0.0.weight": (32, 3, 3, 3),
        "features.1.conv.0.0.weight": (32, 1, 3, 3),
        "features.1.conv.1.weight": (16, 32, 1, 1),
        "features.2.conv.0.0.weight": (96, 16, 1, 1),
        "features.17.conv.3.running_mean": (320,),
        "features.18.0.weight": (1280, 320, 1, 1),
        "classifier.1.weight": (1000, 1280),
    },
    "efficientnet_b0": {
        "features.1.0.block.0.0.weight": (32, 1, 3, 3),
        "features.1.0.block.1.fc1.weight": (8, 32, 1, 1),
        "features.2.0.block.0.0.weight": (96, 16, 1, 1),
        "features.2.0.block.2.fc2.bias": (96,),
        "features.3.0.block.1.0.weight": (144, 1, 5, 5),
        "features.7.0.block.3.1.weight": (320,),
        "features.8.0.weight": (1280, 320, 1, 1),
        "classifier.1.bias": (1000,),
    },
    "repvgg_b1g2": {
        "stage0.rbr_dense.conv.weight": (64, 3, 3, 3),
        "stage1.0.rbr_1x1.conv.weight": (128, 64, 1, 1),
        "stage1.1.rbr_dense.conv.weight": (128, 64, 3, 3),
        "stage1.1.rbr_identity.running_mean": (128,),
        "stage3.15.rbr_1x1.bn.bias": (512,),
        "stage4.0.rbr_dense.conv.weight": (2048, 512, 3, 3),
        "linear.weight": (1000, 2048),
    },
}

# One backbone of each family, and the smallest map it can be asked for in a test.
FAMILIES = {
    "resnet18": {},
    "resnet50": {},
    "res2net101": {},
    "botnet101": {"map_size": 4},
    "vgg16": {},
    "alexnet": {},
    "mobilenet_v2": {},
    "efficientnet_b0": {},
    "repvgg_b1g2": {},
}

BLOCKS = {
    "basic": lambda: BasicBlock(8, 16, 2),
    "bottleneck": lambda: Bottleneck(16, 4),
    "bottle2neck": lambda: Bottle2neck(256, 64),
    "bottle2neck first": lambda: Bottle2neck(16, 32, 2),
    "attention": lambda: AttentionBlock(16, 32, 8),
    "inverted": lambda: InvertedResidual(8, 8, 1, 6),
    "mbconv": lambda: MBConv(8, Stage(6, 5, 2, 12, 1), 2, 0.1, tensorflow=True),
    "repvgg": lambda: RepVGGBlock(8, 8, 1, groups=2),
}
WIDTHS = {"basic": 8, "bottle2neck": 256, "inverted": 8, "mbconv": 8, "repvgg": 8}


def on_meta(name, num_classes=1000, **options):
    """The backbone without memory for its weights."""
    with torch.device("meta"):
        return backbone(name, num_classes, **options)


def count(network):
    return sum(p.numel() for p in network.parameters())


def stirred(network):
    """The network in evaluation, with normalisations that are no longer the identity."""
    generator = torch.Generator().manual_seed(0)
    for m in network.modules():
        if isinstance(m, nn.BatchNorm2d):
            for values, low, high in ((m.weight, 0.5, 1.5), (m.bias, -0.5, 0.5), (m.running_mean, -0.2, 0.2)):
                values.data.uniform_(low, high, generator=generator)
            m.running_var.data.uniform_(0.5, 2.0, generator=generator)
    return network.eval()


def block_and_map(name, size=8):
    torch.manual_seed(0)
    return stirred(BLOCKS[name]()), torch.randn(2, WIDTHS.get(name, 16), size, size)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_entries_are_as_many_as_published(name):
    network = on_meta(name)
    assert (count(network), len(network.state_dict())) == PUBLISHED[name]


@pytest.mark.parametrize("name", PUBLISHED_MILLIONS)
def test_parameters_in_millions_are_as_published(name):
    assert round(count(on_meta(name)) / 1e6, 2) == PUBLISHED_MILLIONS[name]


def test_repvgg_for_use_is_as_small_as_published():
    assert round(count(on_meta("repvgg_b1g2", deploy=True)) / 1e6, 2) == 41.36


def test_botnet_changes_the_last_layer_of_resnet_alone():
    own, other = on_meta("botnet101").state_dict(), on_meta("resnet101").state_dict()
    before = {k for k in other if not k.startswith("layer4")}
    assert before == {k for k in own if not k.startswith("layer4")}
    # Per block: two convolutions, q, k and v, two position tables; the first block's input has half the channels.
    blocks = 3 * (2 * 512 * 2048 + 512 * 1536 + 2 * 13 * 128 + 2 * (512 + 512 + 2048)) - 512 * 1024
    shortcut = 1024 * 2048 + 2 * 2048
    assert count(on_meta("botnet101").layer4) == blocks + shortcut


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_are_those_of_the_published_weights(name):
    state = on_meta(name).state_dict()
    assert {k: tuple(state[k].shape) for k in NAMES[name]} == NAMES[name]


@pytest.mark.parametrize("name", BACKBONES)
def test_without_classes_only_the_classifier_is_missing(name):
    whole, features = on_meta(name), on_meta(name, None)
    head = whole.OUTPUT.partition(".")[0] + "."
    assert [k for k in whole.state_dict() if not k.startswith(head)] == list(features.state_dict())
    assert whole.get_submodule(whole.OUTPUT).weight.shape[0] == 1000
    with pytest.raises(UbhpdError, match="has no classifier: build it with num_classes"):
        features.logits(torch.empty(1, 3, 64, 64, device="meta"))


@pytest.mark.parametrize("name", FAMILIES)
def test_features_and_a_gradient_for_every_parameter(name):
    torch.manual_seed(0)
    network = backbone(name, **FAMILIES[name])
    features = network(torch.randn(2, 3, 64, 64))
    side = {"botnet101": 4, "alexnet": 1}.get(name, 2)
    assert features.shape == (2, network.channels, side, side)
    torch.testing.assert_close(network.pooled(features), features.mean((2, 3)))
    features.square().mean().backward()
    for parameter_name, p in network.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), parameter_name


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_have_one_column_per_class(name):
    network = on_meta(name, 7).eval()
    size = 112 if name == "botnet101" else 224
    images = torch.empty(2, 3, size, size, device="meta")
    assert network.logits(images).shape == (2, 7)
    side = {"alexnet": 6}.get(name, 7)
    assert network(images).shape == (2, network.channels, side, side)


def test_logits_are_the_classifier_of_the_mean():
    torch.manual_seed(0)
    network = stirred(backbone("resnet18", 5))
    images = torch.randn(2, 3, 64, 64)
    by_hand = network(images).mean((2, 3)) @ network.fc.weight.T + network.fc.bias
    torch.testing.assert_close(network.logits(images), by_hand)


def test_strides_keep_the_resolution_that_they_are_told_to():
    with torch.device("meta"):
        assert resnet(34, strides=(1, 2, 2, 1))(torch.empty(1, 3, 256, 256)).shape == (1, 512, 16, 16)
        assert resnet(50)(torch.empty(1, 3, 256, 256)).shape == (1, 2048, 8, 8)


def test_an_unknown_backbone_is_refused_with_the_nearest_name():
    with pytest.raises(UbhpdError, match="No backbone is called 'resnet19': did you mean resnet18"):
        backbone("resnet19")
    assert type(backbone("ResNet18")) is type(backbone("resnet18"))


def test_convolutions_start_with_the_variance_of_he():
    torch.manual_seed(0)
    for name in ("resnet18", "mobilenet_v2"):
        weights = [(m, m.weight) for m in backbone(name).modules() if isinstance(m, nn.Conv2d)]
        for m, w in weights:
            if w.numel() > 50_000:
                fan_out = w.shape[0] * w.shape[2] * w.shape[3] / m.groups
                assert w.var().item() == pytest.approx(2 / fan_out, rel=0.05)


@pytest.mark.parametrize(
    ("size", "kernel", "before", "after"), [(4, 3, 0, 1), (5, 3, 1, 1), (8, 5, 1, 2), (7, 5, 2, 2), (6, 1, 0, 0)]
)
def test_same_padding_is_tensorflows(size, kernel, before, after):
    """Worked out by hand of ceil(size / 2) outputs: total = (outputs - 1) 2 + kernel - size, the odd one at the end."""
    convolution = SameConv2d(1, 1, kernel, 2, bias=False)
    image = torch.randn(1, 1, size, size)
    padded = functional.pad(image, (before, after, before, after))
    found = convolution(image)
    torch.testing.assert_close(found, functional.conv2d(padded, convolution.weight, stride=2))
    assert found.shape[-2:] == (-(-size // 2),) * 2


def test_tensorflow_changes_every_stride_and_normalisation_and_no_name():
    with torch.device("meta"):
        own, other = EfficientNetB0(tensorflow=True), EfficientNetB0()
    assert list(own.state_dict()) == list(other.state_dict())
    strided = [m for m in own.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
    assert len(strided) == 5 and all(isinstance(m, SameConv2d) for m in strided)
    assert {(m.eps, m.momentum) for m in own.modules() if isinstance(m, nn.BatchNorm2d)} == {(1e-3, 0.01)}
    assert {(m.eps, m.momentum) for m in other.modules() if isinstance(m, nn.BatchNorm2d)} == {(1e-5, 0.1)}


def test_stochastic_depth_drops_whole_heads_and_keeps_the_mean():
    torch.manual_seed(0)
    depth = StochasticDepth(0.25)
    x = torch.ones(4000, 2, 3, 3)
    assert depth.eval()(x) is x
    out = depth.train()(x)
    per_head = out.flatten(1)
    assert (per_head == per_head[:, :1]).all()
    torch.testing.assert_close(per_head[:, 0].unique(), torch.tensor([0.0, 1 / 0.75]))
    assert out.mean().item() == pytest.approx(1, abs=0.03)
    shares = [m.share for m in on_meta("efficientnet_b0").modules() if isinstance(m, StochasticDepth)]
    np.testing.assert_allclose(shares, 0.2 * np.arange(16) / 16)


@pytest.mark.parametrize(("inputs", "outputs", "stride", "groups"), [(8, 8, 1, 2), (8, 8, 1, 1), (4, 8, 2, 2)])
def test_a_repvgg_block_is_one_convolution(inputs, outputs, stride, groups):
    torch.manual_seed(0)
    block = stirred(RepVGGBlock(inputs, outputs, stride, groups))
    x = torch.randn(2, inputs, 9, 9)
    before = block(x)
    block.reparameterize()
    assert list(block.state_dict()) == ["rbr_reparam.weight", "rbr_reparam.bias"]
    torch.testing.assert_close(block(x), before, atol=1e-5, rtol=1e-5)


def test_repvgg_for_use_answers_as_the_trained():
    torch.manual_seed(0)
    network = stirred(RepVGGB1g2(10))
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = network.logits(images)
        network.reparameterize()
        network.reparameterize()
        after = network.logits(images)
    assert (after - before).abs().max() < 1e-4 * before.abs().max()
    with torch.device("meta"):
        built = RepVGGB1g2(10, deploy=True)
    assert {k: v.shape for k, v in network.state_dict().items()} == {k: v.shape for k, v in built.state_dict().items()}


@pytest.mark.parametrize(("first", "reached"), [(False, np.tril(np.ones((3, 3)))), (True, np.eye(3))])
def test_slices_of_res2net_see_those_before_them(first, reached):
    torch.manual_seed(0)
    block = stirred(Bottle2neck(64 if first else 256, 64))
    seen = {}
    block.bn1.register_forward_hook(
        lambda *a: seen.update(before=a[2].detach().abs().requires_grad_()) or seen["before"]
    )
    block.conv3.register_forward_pre_hook(lambda _, a: seen.update(after=a[0]))
    block.relu.inplace = False
    block(torch.randn(1, block.conv1.in_channels, 6, 6))
    found = np.zeros((4, 4))
    for i in range(4):
        (gradient,) = torch.autograd.grad(
            seen["after"][:, 26 * i : 26 * i + 26].sum(), seen["before"], retain_graph=True
        )
        found[i] = [g.abs().sum() > 0 for g in gradient.split(26, dim=1)]
    np.testing.assert_array_equal(found[:3, :3], reached)
    np.testing.assert_array_equal(found[3], [0, 0, 0, 1])
    last = seen["before"][:, 78:]
    expected = functional.avg_pool2d(last, 3, 1, 1) if first else last
    torch.testing.assert_close(seen["after"][:, 78:], expected)


def test_attention_is_what_the_paper_writes():
    """Against a loop over queries and keys: softmax over (q k + q r_rows + q r_columns) / sqrt(width)."""
    torch.manual_seed(0)
    n = 3
    attention = Attention(6, n)
    x = torch.randn(1, 6, n, n)
    q, k, v = attention.to_qkv(x).reshape(3, 4, 128, n, n).unbind()
    positions = attention.pos_emb
    expected = torch.empty(4, 128, n, n)
    for head, y, column in product(range(4), range(n), range(n)):
        query = q[head, :, y, column]
        logits = torch.empty(n, n)
        for key_y, key_x in product(range(n), range(n)):
            relative = positions.rel_height[key_y - y + n - 1] + positions.rel_width[key_x - column + n - 1]
            logits[key_y, key_x] = query @ (k[head, :, key_y, key_x] + relative) / 128**0.5
        share = logits.flatten().softmax(0)
        expected[head, :, y, column] = v[head].flatten(1) @ share
    torch.testing.assert_close(attention(x)[0], expected.flatten(0, 1), atol=1e-5, rtol=1e-4)


def test_an_attention_block_starts_as_its_shortcut():
    block = AttentionBlock(8, 8, 4).eval()
    x = torch.randn(2, 8, 4, 4)
    torch.testing.assert_close(block(x), x.relu())


def test_an_image_of_another_size_is_refused_by_botnet():
    with pytest.raises(UbhpdError, match="map of 4 x 4 where its positions are for 7 x 7: give images of 112 pixels"):
        on_meta("botnet101")(torch.empty(1, 3, 64, 64, device="meta"))


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_compiles_without_a_break(name):
    block, x = block_and_map(name)
    compiled = torch.compile(block, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x.clone()), block(x))


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_takes_channels_last_and_half_precision(name):
    block, x = block_and_map(name)
    expected = block(x)
    last = block.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(last, expected, atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert (block(x) - expected).abs().max() < 0.1 * expected.abs().max()
    half = block.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16 and (half - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.filterwarnings("ignore")  # torch's, about its own exporter and about sizes that become constants
@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_runs_in_onnx(name):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    block, x = block_and_map(name)
    file = io.BytesIO()
    torch.onnx.export(block, (x,), file, opset_version=17, dynamo=False, input_names=["x"])
    (found,) = runtime.InferenceSession(file.getvalue()).run(None, {"x": x.numpy()})
    np.testing.assert_allclose(found, block(x).detach().numpy(), atol=1e-4)
