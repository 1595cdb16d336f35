"""What networks output, in torch: bins of angles, rotations, and the probabilities that teachers pass on.

Angles as classes are bins of equal width with probabilities, and the expectation is the angle.

Hopenet (Ruiz et al., CVPRW 2018) made it the field's custom: 66 bins of 3 degrees from -99 on, a classifier for each
angle, and the expectation over its softmax as the angle. EHPNet has 62 bins from -93 on, WHENet 120 for yaw.

Rotations are differentiable and in the frame and order of `ubhpd.core.rotation`.

In distillation the target of a network is the mean of the probabilities of its teachers: Hinton et al., Distilling the
Knowledge in a Neural Network, 2015; several teachers as in EHPNet (Thai et al., ICPRAM 2022, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from ubhpd.core.errors import UbhpdError
from ubhpd.nn.contract import PoseNetwork


@dataclass(frozen=True)
class Bins:
    """`count` bins of `width_deg` from `first_deg` on; bin i covers first + i * width up to the next."""

    count: int = 66
    width_deg: float = 3.0
    first_deg: float = -99.0

    def classes(self, angle_deg: torch.Tensor) -> torch.Tensor:
        """Return the bin (...) of each angle (...); an angle beyond the first or last bin belongs to that bin."""
        return ((angle_deg - self.first_deg) / self.width_deg).floor().long().clamp(0, self.count - 1)

    def expectation_deg(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the angles (...) of logits (..., count): width * sum(i softmax_i) + first (Hopenet, section 3.2).

        That is the left edge of a bin, so a sure and right classifier is half a bin low: kept, for it is what all
        published numbers have.
        """
        index = torch.arange(self.count, device=logits.device, dtype=logits.dtype)
        return (logits.softmax(dim=-1) * index).sum(dim=-1) * self.width_deg + self.first_deg


HOPENET_BINS = Bins()


class AngleHeads(nn.ModuleDict):
    """A linear classifier for each angle, named fc_yaw, fc_pitch and fc_roll as in Hopenet's published weights."""

    def __init__(self, features: int, bins: int) -> None:
        super().__init__({f"fc_{angle}": nn.Linear(features, bins) for angle in ("yaw", "pitch", "roll")})

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits (n, 3, bins), yaw, pitch, roll, of features (n, f)."""
        return torch.stack([head(features) for head in self.values()], dim=1)


def cross_entropy(logits: torch.Tensor, angles_deg: torch.Tensor, bins: Bins) -> torch.Tensor:
    """Return the cross entropy of logits (n, 3, count) with angles (n, 3): mean over heads, sum over angles."""
    return 3 * functional.cross_entropy(logits.flatten(0, 1), bins.classes(angles_deg).flatten())


def matrix_from_euler(angles_deg: torch.Tensor) -> torch.Tensor:
    """Return R = Rx(-pitch) Ry(-yaw) Rz(-roll) (..., 3, 3) of canonical yaw, pitch, roll (..., 3) in degrees."""
    y, p, r = (-torch.deg2rad(angles_deg)).unbind(-1)
    one, zero = torch.ones_like(y), torch.zeros_like(y)
    x_part = torch.stack([one, zero, zero, zero, p.cos(), -p.sin(), zero, p.sin(), p.cos()], -1).reshape(*y.shape, 3, 3)
    y_part = torch.stack([y.cos(), zero, y.sin(), zero, one, zero, -y.sin(), zero, y.cos()], -1).reshape(*y.shape, 3, 3)
    z_part = torch.stack([r.cos(), -r.sin(), zero, r.sin(), r.cos(), zero, zero, zero, one], -1).reshape(*y.shape, 3, 3)
    return x_part @ y_part @ z_part


def euler_from_matrix(rotation: torch.Tensor) -> torch.Tensor:
    """Return canonical yaw, pitch, roll (..., 3) in degrees of rotations (..., 3, 3).

    Of the two triplets of a rotation it is the one with the smaller |pitch| + |roll|, as in `ubhpd.core.rotation`.
    """
    r = rotation
    pitch = torch.rad2deg(torch.atan2(r[..., 1, 2], r[..., 2, 2]))
    yaw = torch.rad2deg(torch.atan2(-r[..., 0, 2], torch.linalg.vector_norm(r[..., 0, :2], dim=-1)))
    roll = torch.rad2deg(torch.atan2(r[..., 0, 1], r[..., 0, 0]))
    angles = torch.stack([yaw, pitch, roll], dim=-1)
    # With the sign of each angle: yaw becomes 180 - yaw, pitch and roll move by 180 degrees toward 0.
    half_turn = torch.where(angles < 0, -180.0, 180.0)
    other = (angles - half_turn) * torch.tensor([-1.0, 1.0, 1.0]).to(angles)
    is_beyond_profile = angles[..., 1:].abs().sum(dim=-1, keepdim=True) > 180.0
    return torch.where(is_beyond_profile, other, angles)


def geodesic_rad(first: torch.Tensor, second: torch.Tensor, margin: float = 1e-7) -> torch.Tensor:
    """Return the rotation angles (...) in radians between rotations (..., 3, 3): acos((tr(A B^T) - 1) / 2).

    The cosine is kept `margin` inside [-1, 1], where the gradient of acos is finite (6DRepNet, equation 5).
    """
    cosine = ((first * second).sum(dim=(-2, -1)) - 1) / 2
    return torch.acos(cosine.clamp(-1 + margin, 1 - margin))


def orthonormal_columns(six: torch.Tensor) -> torch.Tensor:
    """Return rotations (n, 3, 3) of six numbers (n, 6), by Gram and Schmidt (Zhou et al., CVPR 2019).

    Columns x, y, z: x is the first triple normalised, z the normalised cross product of x and the second triple,
    and y = z x x. Of 16-bit numbers too the rotations are of 32 bits.
    """
    six = six.float() if six.dtype in (torch.float16, torch.bfloat16) else six
    x = functional.normalize(six[:, :3], dim=1)
    z = functional.normalize(torch.linalg.cross(x, six[:, 3:]), dim=1)
    return torch.stack([x, torch.linalg.cross(z, x), z], dim=2)


def nearest_rotation(matrix: torch.Tensor) -> torch.Tensor:
    """Return the rotations (..., 3, 3) with the least sum of squared differences to matrices (..., 3, 3).

    The unit quaternion q of the nearest rotation is the eigenvector of the largest eigenvalue of a symmetric 4 x 4
    matrix that is linear in the given one (Horn, J. Opt. Soc. Am. A 1987, section 4). Made positive and squared again
    and again, that becomes q q^T, in which the rotation is linear. So it is the rotation that singular values give,
    by products and sums alone, which every runtime has.
    """
    power = _horn(matrix)
    # No eigenvalue is below minus the sum of the singular values, and that is at most sqrt(3) times the norm.
    shift = 3**0.5 * torch.linalg.vector_norm(matrix, dim=(-2, -1))
    power = _trace_1(power + shift[..., None, None] * torch.eye(4, device=power.device, dtype=power.dtype))
    for _ in range(_SQUARINGS):
        power = _trace_1((power[..., None] * power[..., None, :, :]).sum(dim=-2))  # autocast leaves this in 32 bits
    return _rotation_of_products(power)


def quaternion_from_euler(angles_deg: torch.Tensor) -> torch.Tensor:
    """Return unit quaternions (..., 4), w x y z with w not below 0, of canonical yaw, pitch, roll (..., 3) in degrees.

    The product of the turns about x by -pitch, y by -yaw and z by -roll, as `matrix_from_euler` has it.
    """
    half = torch.deg2rad(-angles_deg / 2)
    (cy, cp, cr), (sy, sp, sr) = half.cos().unbind(-1), half.sin().unbind(-1)
    quaternion = torch.stack(
        [
            cp * cy * cr - sp * sy * sr,
            sp * cy * cr + cp * sy * sr,
            cp * sy * cr - sp * cy * sr,
            cp * cy * sr + sp * sy * cr,
        ],
        dim=-1,
    )
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def rotation_from_quaternion(quaternion: torch.Tensor) -> torch.Tensor:
    """Return rotations (..., 3, 3) of unit quaternions (..., 4), w x y z."""
    return _rotation_of_products(quaternion[..., :, None] * quaternion[..., None, :])


_SQUARINGS = 16  # a second eigenvalue 0.1 % below the first has no part in the power 2^16


def _trace_1(matrix: torch.Tensor) -> torch.Tensor:
    return matrix / matrix.diagonal(dim1=-2, dim2=-1).sum(dim=-1)[..., None, None]


# Both are written out entry by entry: a constant tensor would be copied to the GPU in every call, which waits for it.


def _horn(matrix: torch.Tensor) -> torch.Tensor:
    """Return Horn's symmetric N (..., 4, 4) of matrices (..., 3, 3), for quaternions with w first: q^T N q = <R, M>."""
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in matrix.unbind(-2))
    x, y, z = h - f, c - g, d - b
    xy, xz, yz = b + d, c + g, f + h
    rows = (
        (a + e + i, x, y, z),
        (x, a - e - i, xy, xz),
        (y, xy, e - a - i, yz),
        (z, xz, yz, i - a - e),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _rotation_of_products(products: torch.Tensor) -> torch.Tensor:
    """Return the rotation (..., 3, 3) of a unit quaternion q, w first, from its products q q^T (..., 4, 4)."""
    (ww, wx, wy, wz), (_, xx, xy, xz), (_, _, yy, yz), (*_, zz) = (row.unbind(-1) for row in products.unbind(-2))
    rows = (
        (ww + xx - yy - zz, 2 * (xy - wz), 2 * (xz + wy)),
        (2 * (xy + wz), ww - xx + yy - zz, 2 * (yz - wx)),
        (2 * (xz - wy), 2 * (yz + wx), ww - xx - yy + zz),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def teacher_probabilities(networks: Sequence[PoseNetwork], images: torch.Tensor) -> torch.Tensor:
    """Return the mean (n, 3, bins) of the probabilities that teachers give: what `Target.teacher` is.

    Teachers run in evaluation mode and without gradient; their mode is restored afterwards.

    Args:
        networks: teachers that take the same images and have the same bins. A teacher has a method `probabilities`,
            from its output to (n, 3, bins).
        images: (n, 3, size, size), normalised.

    Raises:
        UbhpdError: no teacher, a network that cannot be one, or teachers with different bins.
    """
    if not networks:
        raise UbhpdError("Distillation needs a teacher: name one or more trained models.")
    outputs = [_output(network, images) for network in networks]
    if len(counts := {answer.shape[-1] for answer in outputs}) > 1:
        raise UbhpdError(f"The teachers have {', '.join(map(str, sorted(counts)))} bins: take those of one kind.")
    return torch.stack(outputs).mean(dim=0)


def divergence(logits: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Return T^2 KL(teacher || softmax(logits)) of angles, both at temperature T: mean over heads, sum over angles.

    Args:
        logits: the student's, (n, 3, bins).
        teacher: probabilities (n, 3, bins). At T they are p^(1/T), normalised: for a single teacher just the softmax
            of its logits over T.
        temperature: T; above 1 it brings out what is improbable (Hinton et al., section 2).
    """
    softened = (teacher.log() / temperature).softmax(dim=-1)
    student = (logits / temperature).log_softmax(dim=-1)
    return temperature**2 * functional.kl_div(student, softened, reduction="sum") / len(logits)


def _output(network: PoseNetwork, images: torch.Tensor) -> torch.Tensor:
    probabilities = getattr(network, "probabilities", None)
    if probabilities is None:
        raise UbhpdError(
            f"A network of {type(network).__module__} gives no probabilities of bins: take a teacher that does."
        )
    trains = network.training
    network.eval()
    with torch.no_grad():
        output = cast(torch.Tensor, probabilities(network(images)))
    network.train(trains)
    return output
