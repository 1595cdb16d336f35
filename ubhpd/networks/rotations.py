"""Rotations in torch, in the frame and order of `ubhpd.rotation`, differentiable."""

from __future__ import annotations

import torch
from torch.nn import functional


def matrix_from_euler(angles_deg: torch.Tensor) -> torch.Tensor:
    """Return R = Rx(-pitch) Ry(-yaw) Rz(-roll) (..., 3, 3) of canonical yaw, pitch, roll (..., 3) in degrees."""
    y, p, r = (-torch.deg2rad(angles_deg)).unbind(-1)
    one, zero = torch.ones_like(y), torch.zeros_like(y)
    x_part = torch.stack([one, zero, zero, zero, p.cos(), -p.sin(), zero, p.sin(), p.cos()], -1).reshape(*y.shape, 3, 3)
    y_part = torch.stack([y.cos(), zero, y.sin(), zero, one, zero, -y.sin(), zero, y.cos()], -1).reshape(*y.shape, 3, 3)
    z_part = torch.stack([r.cos(), -r.sin(), zero, r.sin(), r.cos(), zero, zero, zero, one], -1).reshape(*y.shape, 3, 3)
    return x_part @ y_part @ z_part


def euler_from_matrix(rotation: torch.Tensor) -> torch.Tensor:
    """Return canonical yaw, pitch, roll (..., 3) in degrees of rotations (..., 3, 3); yaw within [-90, 90]."""
    r = rotation
    pitch = torch.atan2(r[..., 1, 2], r[..., 2, 2])
    yaw = torch.atan2(-r[..., 0, 2], torch.hypot(r[..., 0, 0], r[..., 0, 1]))
    roll = torch.atan2(r[..., 0, 1], r[..., 0, 0])
    return torch.rad2deg(torch.stack([yaw, pitch, roll], dim=-1))


def geodesic_rad(first: torch.Tensor, second: torch.Tensor, margin: float = 1e-7) -> torch.Tensor:
    """Return the rotation angles (...) in radians between rotations (..., 3, 3): acos((tr(A B^T) - 1) / 2).

    The cosine is kept `margin` inside [-1, 1], where the gradient of acos is finite (6DRepNet, equation 5).
    """
    cosine = ((first * second).sum(dim=(-2, -1)) - 1) / 2
    return torch.acos(cosine.clamp(-1 + margin, 1 - margin))


def orthonormal_columns(six: torch.Tensor) -> torch.Tensor:
    """Return rotations (n, 3, 3) of six numbers (n, 6), by Gram and Schmidt (Zhou et al., CVPR 2019).

    Columns x, y, z: x is the first triple normalised, z the normalised cross product of x and the second triple,
    and y = z x x.
    """
    x = functional.normalize(six[:, :3], dim=1)
    z = functional.normalize(torch.linalg.cross(x, six[:, 3:]), dim=1)
    return torch.stack([x, torch.linalg.cross(z, x), z], dim=2)
