"""EHPNet: the divergence by hand, teachers and student at work, the crop of the paper."""

import math

import numpy as np
import pytest
import torch
from network_checks import batch, check_gradients, check_overfits_one_batch, mean_error_deg, overfit_one_batch

from ubhpd.baselines import ehpnet, hopenet
from ubhpd.baselines.ehpnet import BINS, Config, Network
from ubhpd.core.errors import UbhpdError
from ubhpd.images.crops import RECIPES, crop_box
from ubhpd.nn.contract import PoseNetwork, Target
from ubhpd.nn.outputs import AngleHeads, divergence, matrix_from_euler, teacher_probabilities
from ubhpd.training.augmentations import AUGMENTATIONS, Sample

SMALL = {"size": 32}
TEACHERS = [name for name, options in ehpnet.MODELS.items() if options and name != "ehpnet_ensemble"]


def target(angles_deg, teacher=None):
    angles = torch.tensor(angles_deg)
    return Target(angles, matrix_from_euler(angles), teacher=teacher)


def on_meta(**options):
    with torch.device("meta"):
        return Network(Config(**SMALL | options))


def distributions(n, seed=0):
    """Probabilities (n, 3, 62) of clearly different heads, each about a bin of its own."""
    draw = torch.Generator().manual_seed(seed)
    middle = torch.rand((n, 3, 1), generator=draw) * 40 + 10
    return (-((torch.arange(62) - middle) ** 2) / 18).softmax(dim=-1)


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    return Network(Config(**SMALL))


@pytest.mark.parametrize("name", ehpnet.MODELS)
def test_number_of_parameters(name):
    with torch.device("meta"):
        network = Network(Config(**ehpnet.MODELS[name]))
    assert sum(p.numel() for p in network.parameters()) == ehpnet.PARAMETERS[name]


def test_the_student_has_the_parts_of_the_released_code():
    # ResNet-18 without its classifier 11,176,512; 512 x 128 + 128; three times 128 x 62 + 62
    assert ehpnet.PARAMETERS["ehpnet"] == 11_176_512 + 65_664 + 3 * 7_998
    assert isinstance(on_meta().activation, torch.nn.ReLU)
    assert not isinstance(on_meta(backbone="botnet101", distill=False).activation, torch.nn.ReLU)


def test_bins():
    assert (BINS.count, BINS.width_deg, BINS.first_deg) == (62, 3.0, -93.0)
    sure = torch.full((62, 62), -1e4).fill_diagonal_(0.0)
    edges = -93 + 3 * torch.arange(62.0)
    pose = on_meta().pose({"logits": sure[:, None].expand(-1, 3, -1)})
    torch.testing.assert_close(pose, edges[:, None].expand(-1, 3))
    assert torch.equal(BINS.classes(edges + 0.01), torch.arange(62))  # decoding gives the left edge of the class


def test_divergence_by_hand():
    # One angle of two bins matters, the others agree: KL((3/4, 1/4) || (1/2, 1/2)) = 3/4 ln 3/2 + 1/4 ln 1/2
    teacher = torch.tensor([[[0.75, 0.25], [0.5, 0.5], [0.5, 0.5]]])
    by_hand = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert divergence(torch.zeros(1, 3, 2), teacher).item() == pytest.approx(by_hand, rel=1e-5)
    # the other way round it is another number
    assert by_hand != pytest.approx(0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25), rel=1e-2)
    # sum over angles, mean over heads
    three = torch.tensor([[[0.75, 0.25]] * 3, [[0.5, 0.5]] * 3])
    assert divergence(torch.zeros(2, 3, 2), three).item() == pytest.approx(3 * by_hand / 2, rel=1e-5)
    # T = 2: (3/4, 1/4) becomes (sqrt 3, 1) / (sqrt 3 + 1), times T^2
    p = math.sqrt(3) / (math.sqrt(3) + 1)
    softened = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    assert divergence(torch.zeros(1, 3, 2), teacher, 2.0).item() == pytest.approx(4 * softened, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_divergence_is_zero_where_the_student_says_the_same(temperature):
    logits = torch.randn(4, 3, 62, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = divergence(logits, logits.detach().softmax(dim=-1), temperature)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-5) and logits.grad.abs().max() < 1e-5
    other = divergence(logits.flip(0), logits.detach().softmax(dim=-1), temperature)
    assert other.item() > 0.1


def test_a_bin_that_a_teacher_rules_out_costs_nothing():
    teacher = torch.zeros(1, 3, 62)
    teacher[..., 31] = 1.0
    logits = torch.zeros(1, 3, 62, requires_grad=True)
    loss = divergence(logits, teacher)
    loss.backward()
    assert loss.item() == pytest.approx(3 * math.log(62), rel=1e-5) and logits.grad.isfinite().all()


def test_losses_of_student_and_teachers():
    logits, truth = torch.zeros(1, 3, 62), target([[0.0, 3.0, -1.0]])
    # Every bin alike: 3 * 30.5 - 93 = -1.5 degrees, off by 1.5, 4.5, 0.5
    terms = on_meta(distill=False, alpha=2.0).loss({"logits": logits}, truth)
    assert terms["squared_error"].item() == pytest.approx(2 * (2.25 + 20.25 + 0.25), rel=1e-5)
    assert terms["cross_entropy"].item() == pytest.approx(3 * math.log(62), rel=1e-5)
    teacher = distributions(1)
    taught = on_meta().loss({"logits": logits}, truth._replace(teacher=teacher))
    assert set(taught) == {"divergence"}
    assert taught["divergence"].item() == pytest.approx(divergence(logits, teacher).item())
    warm = on_meta(temperature=2.0).loss({"logits": logits}, truth._replace(teacher=teacher))
    assert warm["divergence"].item() == pytest.approx(divergence(logits, teacher, 2.0).item())


def test_distilling_needs_a_teacher_with_the_same_bins(student):
    logits, truth = torch.zeros(2, 3, 62), target([[0.0, 0.0, 0.0]] * 2)
    with pytest.raises(UbhpdError, match="there is none: give some, or train ehpnet_nokd"):
        student.loss({"logits": logits}, truth)
    with pytest.raises(UbhpdError, match="62 bins and its teachers 66"):
        student.loss({"logits": logits}, truth._replace(teacher=torch.full((2, 3, 66), 1 / 66)))


def test_teachers_are_averaged_in_evaluation_mode_without_gradient():
    torch.manual_seed(0)
    teachers = [Network(Config(**SMALL, distill=False)) for _ in range(2)]
    teachers[1].eval()
    images, _ = batch(teachers[0], ehpnet.input_recipe(Config(**SMALL)), n=4)
    before = {k: v.clone() for k, v in teachers[0].state_dict().items()}
    found = teacher_probabilities(teachers, images)
    assert found.shape == (4, 3, 62) and not found.requires_grad
    torch.testing.assert_close(found.sum(dim=-1), torch.ones(4, 3))
    assert [t.training for t in teachers] == [True, False]
    assert all(torch.equal(v, before[k]) for k, v in teachers[0].state_dict().items())  # running statistics too
    with torch.no_grad():
        each = [t.eval()(images)["logits"].softmax(dim=-1) for t in teachers]
    torch.testing.assert_close(found, (each[0] + each[1]) / 2)


def test_who_can_be_a_teacher(student):
    images = torch.zeros(1, 3, 32, 32)
    with pytest.raises(UbhpdError, match="needs a teacher"):
        teacher_probabilities([], images)
    with pytest.raises(UbhpdError, match=r"ubhpd\.baselines\.hopenet gives no probabilities"):
        teacher_probabilities([hopenet.Network(hopenet.Config(backbone="resnet18", size=32))], images)

    class Wide(torch.nn.Module):
        def forward(self, images):
            return {}

        def probabilities(self, output):
            return torch.full((1, 3, 66), 1 / 66)

    with pytest.raises(UbhpdError, match="have 62, 66 bins"):
        teacher_probabilities([student, Wide()], images)


def test_shapes_and_gradients():
    torch.manual_seed(0)
    config = Config(**SMALL)
    network = Network(config)
    inputs, truth = batch(network, ehpnet.input_recipe(config), n=3)
    output = network(inputs)
    assert output["logits"].shape == (3, 3, 62) and network.pose(output).shape == (3, 3)
    check_gradients(network, inputs, truth._replace(teacher=distributions(3)))


@pytest.mark.parametrize("name", [n for n in TEACHERS if n != "ehpnet_nokd"])
def test_large_teachers_at_small_size(name):
    torch.manual_seed(0)
    config = Config(**ehpnet.MODELS[name] | SMALL)
    network = Network(config)
    inputs, truth = batch(network, ehpnet.input_recipe(config), n=2)
    terms = check_gradients(network, inputs, truth)
    assert set(terms) == {"cross_entropy", "squared_error"}
    assert teacher_probabilities([network], inputs).shape == (2, 3, 62)


def test_evaluation_is_deterministic_and_looks_at_each_head_alone(student):
    inputs, _ = batch(student, ehpnet.input_recipe(Config(**SMALL)), n=3)
    student.eval()
    with torch.no_grad():
        together = student(inputs)["logits"]
        alone = torch.cat([student(one)["logits"] for one in inputs.split(1)])
        assert torch.equal(together, student(inputs)["logits"])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_a_student_comes_to_say_what_its_teachers_say():
    torch.manual_seed(0)
    config = Config(**SMALL)
    network = Network(config)
    inputs, truth = batch(network, ehpnet.input_recipe(config))
    taught = truth._replace(teacher=distributions(16))
    (loss, _), (last, _) = overfit_one_batch(network, inputs, taught, steps=30)
    assert last < loss / 20
    told = network.probabilities(network(inputs)).detach()
    distance = (told - taught.teacher).abs().sum(dim=-1) / 2  # total variation, 1 at most
    assert distance.mean() < 0.1
    expected = BINS.expectation_deg(taught.teacher.log())
    assert (network.pose(network(inputs)).detach() - expected).abs().mean() < 2


def with_statistics_of(network, inputs):
    """The network with the mean and variance of these inputs, which are all there are, in its normalisations."""
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        network.train()(inputs)
    return network


def test_labels_teach_the_teacher_and_it_the_student():
    """The student sees no label: those of its target are wrong."""
    torch.manual_seed(0)
    teacher, student = Network(Config(**SMALL, distill=False)), Network(Config(**SMALL))
    inputs, truth = batch(student, ehpnet.input_recipe(student.config))
    (loss, _), (last, error_deg) = overfit_one_batch(teacher, inputs, truth, steps=25)
    assert last < loss / 50
    assert error_deg < 5
    told = teacher_probabilities([with_statistics_of(teacher, inputs)], inputs)
    wrong = Target(truth.angles_deg.flip(0), truth.rotation.flip(0), teacher=told)
    overfit_one_batch(student, inputs, wrong, steps=30)
    assert mean_error_deg(student, student(inputs), truth) < 15  # 67 to the wrong labels


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in TEACHERS if n != "ehpnet_nokd"])
def test_large_teachers_fits_16_heads_it_trains_on(name):
    torch.manual_seed(0)
    network = Network(Config(**ehpnet.MODELS[name] | SMALL))
    inputs, truth = batch(network, ehpnet.input_recipe(network.config))
    check_overfits_one_batch(network, inputs, truth, steps=200, loss_divided_by=50)


@pytest.mark.parametrize("spoiled", [-93.0, 92.999])
def test_angles_at_the_ends_have_a_finite_loss(spoiled):
    terms = on_meta(distill=False).loss({"logits": torch.randn(1, 3, 62) * 100}, target([[spoiled] * 3]))
    assert all(term.isfinite() for term in terms.values())


@pytest.mark.parametrize("name", ["ehpnet", "ehpnet_res2net101", "ehpnet_botnet101"])
def test_published_weights_by_their_names(name):
    config = Config(**ehpnet.MODELS[name] | SMALL)
    with torch.device("meta"):
        own = Network(config).state_dict()
    filled = {k: torch.full(v.shape, float(i), dtype=v.dtype) for i, (k, v) in enumerate(own.items())}
    theirs = {k.removeprefix("backbone.").removeprefix("heads."): v for k, v in filled.items()}
    if name == "ehpnet_botnet101":
        theirs = {k.replace("layer4.", "BOT."): v for k, v in theirs.items()}
        assert "BOT.net.0.net.3.to_qkv.weight" in theirs
    assert {"linear.weight", "fc_yaw.bias", "layer1.0.bn1.weight"} <= set(theirs)
    found = ehpnet.published(config, theirs | {"fc_mask.weight": torch.zeros(2, 512), "fc_mask.bias": torch.zeros(2)})
    assert all(torch.equal(found[k], v) for k, v in filled.items() if not k.endswith("num_batches_tracked"))
    with pytest.raises(UbhpdError, match=r"lack fc_roll\.weight"):
        ehpnet.published(config, {k: v for k, v in theirs.items() if k != "fc_roll.weight"})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "resnet50"}, 'backbone is "resnet50"'),
        ({"size": 16}, "size is 16"),
        ({"backbone": "botnet101", "size": 40, "distill": False}, "size is 40: botnet101 needs a multiple of 16"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"alpha": -1.0, "distill": False}, "alpha is -1.0"),
        ({"alpha": 2.0}, "alpha is for labels"),
        ({"temperature": 2.0, "distill": False}, "temperature is for distilling"),
        ({"layers": "half"}, 'layers is "half": choose quarter or direct'),
        ({"augmentation": "none"}, 'augmentation is "none"'),
        ({"backbone": "ensemble"}, "ensemble is of teachers"),
        ({"backbone": "ensemble", "size": 40, "distill": False}, "size is 40: botnet101 needs"),
    ],
)
def test_bad_options_are_refused(options, words):
    with pytest.raises(UbhpdError, match=words):
        Config(**options)


def test_recipes():
    fed = ehpnet.input_recipe(Config())
    assert (fed.crop, fed.size, fed.colour) == ("ehpnet", RECIPES["ehpnet"].size, RECIPES["ehpnet"].colour)
    assert (0 - fed.mean[0]) / fed.std[0] == -0.99609375 and 1 / fed.std[0] == 0.0078125
    taught, alone = (ehpnet.training_recipe(Config(distill=d)) for d in (True, False))
    assert (taught.epochs, taught.final_share, alone.epochs, alone.final_share) == (200, 0.01, 100, 0.001)
    for recipe in (taught, alone):
        assert (recipe.lr, recipe.schedule, recipe.warmup_epochs, recipe.clip_value) == (1e-4, "cosine", 1, 0.5)
        assert set(recipe.augmentations) <= set(AUGMENTATIONS)
        assert recipe.max_angle_deg == -BINS.first_deg == BINS.first_deg + BINS.count * BINS.width_deg


def test_the_crop_is_the_papers_square():
    draw = np.random.default_rng(0)
    for _ in range(300):
        x, y, w, h = draw.integers(20, 200, 4).tolist()
        grown = abs(w - h) // 2
        across, down = (grown, 0) if w < h else (0, grown)
        wanted = np.array([x - across, y - down, x + w + across, y + h + down])
        found = np.array(
            crop_box({"bbox_xyxy": (x, y, x + w, y + h), "image_width": 450, "image_height": 450}, RECIPES["ehpnet"])
        )
        assert found[2] - found[0] == found[3] - found[1] == max(w, h)
        assert np.abs(found - wanted).max() <= (w - h) % 2


def test_the_papers_own_heads_and_augmentations_are_options():
    direct = Network(Config(**SMALL, layers="direct"))
    assert isinstance(direct.linear, torch.nn.Identity) and direct.heads["fc_yaw"].in_features == 512
    inputs, _ = batch(direct, ehpnet.input_recipe(direct.config), n=2)
    assert direct(inputs)["logits"].shape == (2, 3, 62)
    paper = ehpnet.training_recipe(Config(augmentation="paper")).augmentations
    assert paper == ("flip", "ehpnet_brightness", "ehpnet_resolution", "ehpnet_gaussian_blur")
    flat = Sample(np.full((32, 32, 3), 100, np.uint8), np.zeros(3))
    sharp = Sample(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8), np.zeros(3))
    blurred = 0
    for seed in range(200):
        change = AUGMENTATIONS["ehpnet_gaussian_blur"]
        assert np.array_equal(change(flat, np.random.default_rng(seed)).pixels, flat.pixels)
        found = change(sharp, np.random.default_rng(seed)).pixels
        blurred += not np.array_equal(found, sharp.pixels)
        assert found.std() <= sharp.pixels.std()  # never sharper
    assert 60 < blurred < 100


class Tiny(PoseNetwork):
    """A member of an ensemble without its 40 million parameters."""

    def __init__(self, config):
        super().__init__()
        self.config, self.heads = config, AngleHeads(3, 62)

    def forward(self, images):
        return {"logits": self.heads(images.mean(dim=(2, 3)))}

    pose, probabilities, loss, members = Network.pose, Network.probabilities, Network.loss, {}


@pytest.fixture
def ensemble():
    torch.manual_seed(0)
    own = Network.__new__(Network)
    PoseNetwork.__init__(own)
    own.config = Config(backbone="ensemble", distill=False, size=32)
    names = ("resnet101", "res2net101", "botnet101")
    own.members = torch.nn.ModuleDict({name: Tiny(Config(distill=False)) for name in names})
    return own


def test_an_ensemble_says_the_mean_of_its_members_and_each_learns_by_itself(ensemble):
    images = torch.randn(4, 3, 8, 8)
    output = ensemble(images)
    members = [m(images)["logits"].softmax(-1) for m in ensemble.members.values()]
    torch.testing.assert_close(ensemble.probabilities(output), torch.stack(members).mean(0))
    mean = sum((p * torch.arange(62)).sum(-1) * 3 - 93 for p in members) / 3  # the paper: the same as averaging angles
    torch.testing.assert_close(ensemble.pose(output), mean, rtol=1e-4, atol=1e-3)
    truth = target([[1.0, 2.0, 3.0]] * 4)
    terms = ensemble.loss(output, truth)
    assert len(terms) == 6
    sum(terms.values()).backward()
    for name, member in ensemble.members.items():
        own = [p.grad.clone() for p in member.parameters()]
        member.zero_grad()
        alone = member.loss(member(images), truth)
        assert {k: v.item() for k, v in alone.items()} == pytest.approx(
            {k: terms[f"{name}/{k}"].item() for k in ("cross_entropy", "squared_error")}
        )
        sum(alone.values()).backward()
        for a, b in zip(own, [p.grad for p in member.parameters()], strict=True):
            torch.testing.assert_close(a, b)


def test_an_ensemble_is_put_together_of_three_files_in_any_order():
    config = Config(backbone="ensemble", distill=False, size=32)
    tensors, wanted = {}, {}
    for number, member in enumerate(("botnet101", "resnet101", "res2net101")):
        with torch.device("meta"):
            state = Network(Config(backbone=member, distill=False, size=32)).state_dict()
        for i, (name, value) in enumerate(state.items()):
            filled = (torch.zeros((), dtype=value.dtype) + i + number).expand(value.shape)
            tensors[f"{number}/{name}"] = wanted[f"members.{member}.{name}"] = filled
    found = ehpnet.published(config, tensors)
    with torch.device("meta"):
        assert set(found) == set(Network(config).state_dict())
    assert all(torch.equal(found[n], v) for n, v in wanted.items() if v.ndim)
    with pytest.raises(UbhpdError, match="No file is of the member botnet101"):
        ehpnet.published(config, {n: v for n, v in tensors.items() if not n.startswith("0/")})
