"""What every network in baselines/ is put through: a batch of heads to overfit, gradients, a mirror."""

from itertools import islice

import torch

from ubhpd.nn.contract import Target
from ubhpd.nn.outputs import matrix_from_euler

STEADY = 5


def batch(network, recipe, n=16, seed=0, spread_deg=60.0):
    """Return n inputs that differ clearly, and their made-up truth; landmarks lie inside the image."""
    draw = torch.Generator().manual_seed(seed)
    angles = (torch.rand((n, 3), generator=draw) * 2 - 1) * spread_deg
    landmarks = torch.rand((n, 68, 2), generator=draw) * 0.8 - 0.4
    coarse = torch.rand((n * recipe.frames, 3, 8, 8), generator=draw) * 255
    images = torch.nn.functional.interpolate(coarse, size=recipe.size, mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (recipe.mean, recipe.std))
    images = (images - mean) / std
    if recipe.frames > 1:
        images = images.unflatten(0, (n, recipe.frames))
    return images, Target(angles, matrix_from_euler(angles), landmarks)


def mean_error_deg(network, output, target):
    """Return the mean geodesic error in degrees of a network's answer."""
    pose = network.pose(output).detach().double()
    rotation = pose if pose.ndim == 3 else matrix_from_euler(pose)
    chord = ((rotation - target.rotation.double()) ** 2).sum(dim=(1, 2))
    return float(torch.rad2deg(2 * torch.arcsin((chord / 8).sqrt().clamp(max=1))).mean())


def check_gradients(network, inputs, target):
    """Assert that one step back reaches every trainable parameter with finite numbers; return the loss terms."""
    network.train()
    network.zero_grad()
    terms = network.loss(network(inputs), target)
    assert all(term.ndim == 0 for term in terms.values())
    sum(terms.values()).backward()
    without = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not without, f"no gradient reaches {without[:5]}"
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)
    return {name: float(term.detach()) for name, term in terms.items()}


def training(network, inputs, target, lr=1e-3):
    """Train on one batch without end; yield loss and mean geodesic error in degrees before every step."""
    network.train()
    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=lr)
    while True:
        output = network(inputs)
        loss = sum(network.loss(output, target).values())
        yield float(loss.detach()), mean_error_deg(network, output, target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def overfit_one_batch(network, inputs, target, steps, lr=1e-3):
    """Train on one batch; return loss and mean geodesic error in degrees before and after, in training mode."""
    history = list(islice(training(network, inputs, target, lr), steps + 1))
    return history[0], history[-1]


def check_overfits_one_batch(network, inputs, target, steps, lr=1e-3, *, loss_divided_by, error_deg=5.0):
    """Assert that a network memorises one batch; return its loss and mean error in degrees before training.

    Training ends when the loss is below the first loss divided by `loss_divided_by`, and the error below `error_deg`,
    at STEADY steps in a row. The number of steps that this takes depends on the rounding of the processor's kernels,
    so `steps`, after which the check fails, is at least twice the largest number seen on any of them.
    """
    history = []
    for loss, error in islice(training(network, inputs, target, lr), steps + 1):
        history.append((loss, error))
        loss_limit = history[0][0] / loss_divided_by
        if all(loss < loss_limit and error < error_deg for loss, error in history[-STEADY:]):
            return history[0]
    raise AssertionError(
        f"after {steps} steps the loss is {loss:.3g} and the error {error:.2f} degrees; they must be "
        f"below {loss_limit:.3g} and {error_deg:g} degrees at {STEADY} steps in a row"
    )
