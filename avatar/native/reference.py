"""Every kernel in plain torch: the specification that the native code is tested against, and the fallback without it.

Written to be read, and differentiated by autograd. The one concession to speed is that :func:`rasterize` works tile by
tile instead of blending every Gaussian into every pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from avatar.native.frames import CanonicalGaussians, FieldFeatures, FieldSpace, FrameMotion

ALPHA_MIN = 1 / 255
ALPHA_MAX = 0.999
TRANSMITTANCE_MIN = 1e-4
TILE = 16
PLANES = ((0, 1), (1, 2), (0, 2))  # xy, yz, xz
LOG_DENSITY_MAX = 11.0  # a density of 60,000 per centimetre
RAYS_AT_ONCE = 4096
STEPS_MAX = 4096  # across the box


def grid_rows(x: Tensor, y: Tensor, resolution: int, rows: int) -> Tensor:
    """Table row of grid vertices: row-major while the level fits, else the 2D spatial hash of instant-ngp (eq. 4)."""
    side = resolution + 1
    if side * side <= rows:
        return y * side + x
    return (x ^ (y * 2654435761 & 0xFFFFFFFF)) % rows


def triplane_encode(points: Tensor, table: Tensor, resolutions: Sequence[int]) -> Tensor:
    """Bilinear features of three planes; see :func:`avatar.native.triplane_encode`."""
    rows = table.shape[2]
    inside = points.clamp(-1, 1)
    features = []
    for plane, axes in enumerate(PLANES):
        for level, resolution in enumerate(resolutions):
            position = (inside[:, axes] + 1) * (0.5 * resolution)
            cell = position.detach().nan_to_num().to(torch.int64).clamp(max=resolution - 1)
            fraction = position - cell
            corner = [
                table[plane, level, grid_rows(cell[:, 0] + dx, cell[:, 1] + dy, resolution, rows)]
                for dy in (0, 1)
                for dx in (0, 1)
            ]
            fx, fy = fraction[:, :1], fraction[:, 1:]
            low = corner[0] + fx * (corner[1] - corner[0])
            high = corner[2] + fx * (corner[3] - corner[2])
            features.append(low + fy * (high - low))
    return torch.cat(features, dim=1)


def _rotation_matrices(quats: Tensor) -> Tensor:
    w, x, y, z = F.normalize(quats, dim=-1, eps=0.0).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, dim=-1).reshape(-1, 3, 3)


def skin_gaussians(
    means: Tensor, quats: Tensor, weights: Tensor, offsets: Tensor, transforms: Tensor, transform_quats: Tensor
) -> tuple[Tensor, Tensor]:
    """Linear blend skinning; see :func:`avatar.native.skin_gaussians`."""
    by_first, by_second = (
        x @ transform[:, :3].T + transform[:, 3]
        for x, transform in zip((means, means + offsets), transforms, strict=True)
    )
    posed = torch.lerp(by_second, by_first, weights[:, None])
    w, x, y, z = torch.lerp(transform_quats[1], transform_quats[0], weights[:, None]).unbind(-1)
    a, b, c, d = quats.unbind(-1)
    product = [
        *(w * a - x * b - y * c - z * d, w * b + x * a + y * d - z * c),
        *(w * c - x * d + y * a + z * b, w * d + x * c - y * b + z * a),
    ]
    return posed, torch.stack(product, dim=-1)


def project_gaussians(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    viewmat: Tensor,
    K: Tensor,
    width: int,
    height: int,
    eps2d: float = 0.3,
    near_plane: float = 0.01,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """EWA projection (Zwicker et al. 2001) as in gsplat; see :func:`avatar.native.project_gaussians`."""
    view, shift = viewmat[:3, :3], viewmat[:3, 3]
    camera = means @ view.T + shift
    x, y, depth = camera.unbind(-1)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    # The map is linearised at a direction at most 1.3 fields of view off the axis: beyond, the linearisation blows up.
    ray_x = torch.clamp(x / depth, (-cx - 0.15 * width) / fx, (width - cx + 0.15 * width) / fx)
    ray_y = torch.clamp(y / depth, (-cy - 0.15 * height) / fy, (height - cy + 0.15 * height) / fy)
    axes = view @ _rotation_matrices(quats) * scales[:, None, :]
    skew = torch.stack(
        [
            (fx / depth)[:, None] * (axes[:, 0] - ray_x[:, None] * axes[:, 2]),
            (fy / depth)[:, None] * (axes[:, 1] - ray_y[:, None] * axes[:, 2]),
        ],
        dim=1,
    )
    covariance = skew @ skew.transpose(1, 2)
    xx, xy, yy = covariance[:, 0, 0] + eps2d, covariance[:, 0, 1], covariance[:, 1, 1] + eps2d
    determinant = xx * yy - xy * xy
    conics = torch.stack([yy, -xy, xx], dim=-1) / determinant[:, None]
    means2d = torch.stack([fx * x / depth + cx, fy * y / depth + cy], dim=-1)

    with torch.no_grad():
        middle = 0.5 * (xx + yy)
        reach = 3 * torch.sqrt(middle + torch.sqrt(torch.clamp(middle * middle - determinant, min=0)))
        seen = (depth >= near_plane) & (determinant > 0) & (reach < 1e9)
        seen &= (means2d[:, 0] + reach > 0) & (means2d[:, 0] - reach < width)
        seen &= (means2d[:, 1] + reach > 0) & (means2d[:, 1] - reach < height)
        radii = torch.where(seen, torch.ceil(reach), torch.zeros_like(reach)).to(torch.int32)

    zero = means2d.new_zeros(())
    return (
        radii,
        torch.where(seen[:, None], means2d, zero),
        torch.where(seen, depth, zero),
        torch.where(seen[:, None], conics, zero),
    )


def animate_gaussians(
    gaussians: CanonicalGaussians, motion: FrameMotion, viewmat: Tensor, K: Tensor, width: int, height: int,
    eps2d: float = 0.3,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Deformation, skinning, activations and projection; see :func:`avatar.native.animate_gaussians`."""
    g = gaussians
    rest = len(g.means) - len(motion.changes)
    changes = F.pad(motion.changes, (0, 0, 0, rest)).split([3, 3, 1, 3], 1)
    displacements = (motion.vertices[g.bind_index.long()] * g.bind_weight[:, :, None]).sum(1)
    means = g.means + displacements + changes[0]
    offsets = _warp(means, motion.warp, motion.warp_frame)
    means, quats = skin_gaussians(means, g.quats, g.weights[:, 0], offsets, motion.transforms, motion.transform_quats)
    projected = project_gaussians(means, quats, (g.scales + changes[1]).exp(), viewmat, K, width, height, eps2d)
    return *projected, torch.sigmoid(g.opacities + changes[2])[:, 0], g.colors + changes[3]


def _warp(points: Tensor, nodes: Tensor, frame: Tensor) -> Tensor:
    """Bilinear displacements [N, 3] of points from a grid [R, C, 2] in the plane of the pivot."""
    rows, columns, _ = nodes.shape
    pivot, low, high = frame.split([3, 2, 2])
    nearness = pivot[2] / points[:, 2:].clamp_min(1e-3)
    place = ((points[:, :2] * nearness - pivot[:2] - low) / (high - low)).clamp(0, 1).nan_to_num(0)
    x, y = (place * place.new_tensor([columns - 1, rows - 1])).unbind(1)
    left, top = x.long().clamp_max(columns - 2), y.long().clamp_max(rows - 2)
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    upper = torch.lerp(nodes[top, left], nodes[top, left + 1], fx)
    lower = torch.lerp(nodes[top + 1, left], nodes[top + 1, left + 1], fx)
    return F.pad(torch.lerp(upper, lower, fy) / nearness, (0, 1))


def _blend(pixels: Tensor, means2d: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor) -> tuple[Tensor, Tensor]:
    """Blend Gaussians, front first, into pixel centres [P, 2]: color [P, C] and transmittance left [P]."""
    dx, dy = (pixels[:, None] - means2d[None]).unbind(-1)
    a, b, c = conics.unbind(-1)
    sigma = (0.5 * a * dx * dx + b * dx * dy + 0.5 * c * dy * dy).clamp(min=0)
    raw = opacities * torch.exp(-sigma)
    alpha = torch.where(raw >= ALPHA_MIN, raw.clamp(max=ALPHA_MAX), torch.zeros_like(raw))
    after = torch.cumprod(1 - alpha, dim=1)
    # Blending stops before the Gaussian that would leave less than TRANSMITTANCE_MIN.
    alpha = torch.where(after.detach() > TRANSMITTANCE_MIN, alpha, torch.zeros_like(alpha))
    after = torch.cumprod(1 - alpha, dim=1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)
    return (before * alpha) @ colors, (1 - alpha).prod(dim=1)


def rasterize(
    means2d: Tensor,
    conics: Tensor,
    colors: Tensor,
    opacities: Tensor,
    depths: Tensor,
    radii: Tensor,
    width: int,
    height: int,
    background: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Alpha blending, front to back; see :func:`avatar.native.rasterize`."""
    channels = colors.shape[1]
    with torch.no_grad():
        order = torch.argsort(depths, stable=True)
        drawn = (radii > 0) & (opacities > ALPHA_MIN) & opacities.isfinite()
        drawn &= means2d.isfinite().all(1) & conics.isfinite().all(1)
        order = order[drawn[order]]
        limit = 2 * torch.log(opacities[order] / ALPHA_MIN)
        a, b, c = conics[order].unbind(-1)
        half = torch.sqrt(limit[:, None] * torch.stack([c, a], dim=-1) / (a * c - b * b)[:, None]) + 0.5
        low, high = means2d[order] - half, means2d[order] + half

    rows, pixel_sizes = [], means2d.new_tensor([0.5, 0.5])
    for top in range(0, height, TILE):
        row = []
        for left in range(0, width, TILE):
            bottom, right = min(top + TILE, height), min(left + TILE, width)
            inside = (low[:, 0] < right) & (high[:, 0] > left) & (low[:, 1] < bottom) & (high[:, 1] > top)
            ids = order[inside]
            ys, xs = torch.meshgrid(torch.arange(top, bottom), torch.arange(left, right), indexing="ij")
            pixels = torch.stack([xs, ys], dim=-1).reshape(-1, 2).to(means2d) + pixel_sizes
            color, final_t = _blend(pixels, means2d[ids], conics[ids], colors[ids], opacities[ids])
            row.append(torch.cat([color, final_t[:, None]], dim=1).reshape(bottom - top, right - left, channels + 1))
        rows.append(torch.cat(row, dim=1))
    image, final_t = torch.cat(rows, dim=0).split([channels, 1], dim=2)
    if background is not None:
        image = image + final_t * background
    return image, 1 - final_t


def draw(*arguments: Any) -> Tensor:
    """The image of :func:`rasterize` in bytes; see :func:`avatar.native.draw`."""
    return (rasterize(*arguments)[0].nan_to_num(0, posinf=1, neginf=0).clamp(0, 1) * 255 + 0.5).to(torch.uint8)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Mean structural similarity (Wang et al. 2004); see :func:`avatar.native.ssim`."""
    channels = a.shape[2]
    offsets = torch.arange(-5, 6, dtype=a.dtype, device=a.device)
    line = torch.exp(-offsets * offsets / (2 * 1.5**2))
    line = line / line.sum()
    window = (line[:, None] * line[None, :]).expand(channels, 1, 11, 11)

    def local_mean(x: Tensor) -> Tensor:
        return F.conv2d(x.permute(2, 0, 1)[None], window, padding=5, groups=channels)[0]

    mu_a, mu_b = local_mean(a), local_mean(b)
    var_a, var_b = local_mean(a * a) - mu_a * mu_a, local_mean(b * b) - mu_b * mu_b
    covariance = local_mean(a * b) - mu_a * mu_b
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mu_a * mu_b + c1) * (2 * covariance + c2)
    return (top / ((mu_a * mu_a + mu_b * mu_b + c1) * (var_a + var_b + c2))).mean()


def l1_ssim(
    image: Tensor, target: Tensor, ssim_weight: float, weight: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Loss, weighted L1, SSIM and mean squared error; see :func:`avatar.native.l1_ssim`."""
    difference = image - target
    l1 = (difference.abs() if weight is None else difference.abs() * weight).mean()
    similarity = ssim(image, target)
    loss = (1 - ssim_weight) * l1 + ssim_weight * (1 - similarity)
    return loss, l1.detach(), similarity.detach(), difference.detach().square().mean()


def deform_code(
    code: Tensor,
    condition: Tensor,
    middle_weight: Tensor,
    middle_bias: Tensor,
    head_weight: Tensor,
    head_bias: Tensor,
    scale: Tensor,
) -> Tensor:
    """Hidden layers and output; see :func:`avatar.native.deform_code`."""
    base, attention = code.chunk(2, dim=1)
    hidden = F.relu(base + attention * condition)
    return F.linear(F.relu(F.linear(hidden, middle_weight, middle_bias)), head_weight, head_bias) * scale


def deform_mlp(features: Tensor, spatial_weight: Tensor, spatial_bias: Tensor, *layers: Tensor) -> Tensor:
    """The whole deformation network; see :func:`avatar.native.deform_mlp`."""
    base, gate = F.linear(features, spatial_weight, spatial_bias).chunk(2, dim=1)
    return deform_code(torch.cat([base, 2 * torch.sigmoid(gate)], dim=1), *layers)


def adam_step(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
) -> None:
    """One Adam step in place (Kingma and Ba 2015); see :func:`avatar.native.adam_step`."""
    exp_avg.mul_(beta1).add_(grad, alpha=1 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    denominator = exp_avg_sq.sqrt().mul_((1 - beta2**step) ** -0.5).add_(eps)
    param.addcdiv_(exp_avg, denominator, value=-lr / (1 - beta1**step))


def march_rays(
    offsets: Tensor, starts: Tensor, ends: Tensor, densities: Tensor, colors: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Volume rendering of packed samples (Max 1995); see :func:`avatar.native.march_rays`."""
    rays, eps = len(offsets) - 1, torch.finfo(colors.dtype).eps
    counts = offsets.diff().long()
    ray = torch.repeat_interleave(torch.arange(rays, device=colors.device), counts)
    place = torch.arange(len(ray), device=colors.device) - offsets[:-1].long()[ray]
    tau = densities * (ends - starts)
    # A row per ray, so that a sum along one ray neither rounds nor spreads infinities into another.
    most = int(counts.max()) if rays else 0
    before = tau.new_zeros(rays, most + 1).index_put((ray, place + 1), tau).cumsum(1)[ray, place]
    weights = torch.exp(-before) * -torch.expm1(-tau)
    middles = 0.5 * (starts + ends)
    columns = torch.cat([weights[:, None] * colors, weights[:, None], (weights * middles)[:, None]], dim=1)
    sums = columns.new_zeros(rays, columns.shape[1]).index_add(0, ray, columns)
    color, opacity, depth = sums[:, :-2], sums[:, -2], sums[:, -1]
    return color, opacity, depth / opacity.clamp_min(eps)


def radiance_mlp(
    features: Tensor,
    attention_weight: Tensor,
    attention_bias: Tensor,
    gate_weight: Tensor,
    gate_bias: Tensor,
    base_weight: Tensor,
    base_bias: Tensor,
    conditions: Tensor,
    density_weight: Tensor,
    density_bias: Tensor,
    color_weight: Tensor,
    color_bias: Tensor,
    rgb_weight: Tensor,
    rgb_bias: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Density, color and gates of samples; see :func:`avatar.native.radiance_mlp`."""
    attention = F.relu(F.linear(features, attention_weight, attention_bias))
    gates = torch.sigmoid(F.linear(attention, gate_weight, gate_bias))
    hidden = F.relu(F.linear(features, base_weight, base_bias) + gates @ conditions)
    logits, geometry = F.linear(hidden, density_weight, density_bias).split([1, len(density_weight) - 1], dim=1)
    # The value stops at LOG_DENSITY_MAX, the slope does not vanish there: what overshoots finds back.
    densities = torch.exp(logits - (logits - LOG_DENSITY_MAX).clamp_min(0).detach())[:, 0]
    colors = torch.sigmoid(F.linear(F.relu(F.linear(geometry, color_weight, color_bias)), rgb_weight, rgb_bias))
    return densities, colors, gates


def sample_rays(
    origins: Tensor,
    directions: Tensor,
    box: Sequence[float] | Sequence[Sequence[float]],
    occupancy: Tensor,
    step: float,
    max_samples: int,
    limits: Tensor | None = None,
    jitter: Tensor | None = None,
    budget: int | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """Positions, starts, ends, offsets and complete rays; see :func:`avatar.native.sample_rays`."""
    found = []
    for part in (slice(i, i + RAYS_AT_ONCE) for i in range(0, max(len(origins), 1), RAYS_AT_ONCE)):
        rays = (origins[part].detach(), directions[part].detach())
        some = (None if limits is None else limits[part], None if jitter is None else jitter[part])
        found.append(_intervals(*rays, *some, origins.new_tensor(box).view(2, 3), occupancy, step, max_samples))
    counts, starts, ends = (torch.cat(x) for x in zip(*found, strict=True))
    sums = F.pad(counts.cumsum(0), (1, 0))
    complete = len(origins) if budget is None else int((sums[1:] <= budget).sum())
    offsets = sums.clamp_max(sums[complete]).to(torch.int32)
    starts, ends = starts[: offsets[-1]], ends[: offsets[-1]]
    ray = torch.repeat_interleave(torch.arange(complete, device=origins.device), counts[:complete])
    return origins[ray] + (0.5 * (starts + ends))[:, None] * directions[ray], starts, ends, offsets, complete


def _intervals(
    origins: Tensor, directions: Tensor, limits: Tensor | None, jitter: Tensor | None, box: Tensor, occupancy: Tensor,
    step: float, max_samples: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Number of samples of each ray, their starts and their ends: every interval of the box is looked up."""
    # Along an axis that a ray does not follow, the distances to both faces are infinite.
    faces = (box[:, None] - origins) / directions
    enter, leave = faces.amin(0).amax(1).clamp_min(0), faces.amax(0).amin(1)
    if limits is not None:
        enter, leave = torch.maximum(enter, limits[:, 0]), torch.minimum(leave, limits[:, 1])
    most = ((leave - enter) / step).nan_to_num(0).clamp(0, STEPS_MAX).max().ceil() if len(origins) else 0
    place = torch.arange(int(most), device=origins.device, dtype=origins.dtype) + (
        0 if jitter is None else jitter[:, None]
    )
    starts, ends = (enter[:, None] + (place + i) * step for i in (0, 1))
    middles = 0.5 * (starts + ends)
    depth, height, width = occupancy.shape
    cells = torch.tensor([8 * width, height, depth], device=origins.device)
    inside = (origins[:, None] + middles[:, :, None] * directions[:, None] - box[0]) / (box[1] - box[0])
    x, y, z = (inside * cells).nan_to_num(0).clamp_min(0).long().minimum(cells - 1).unbind(-1)
    kept = (middles < leave[:, None]) & (occupancy[z, y, x >> 3].long() >> (x & 7) & 1).bool()
    kept &= kept.cumsum(1) <= max_samples
    return kept.sum(1), starts[kept], ends[kept]


def draw_field(
    origin: Sequence[float], matrix: Sequence[Sequence[float]], box: Sequence[int] | Tensor, space: FieldSpace,
    features: FieldFeatures, network: Sequence[Tensor],
) -> Tensor:  # fmt: skip
    """A radiance field drawn, no ray of which ends early; see :func:`avatar.native.draw_field`."""
    table = features.table
    if isinstance(box, Tensor):
        places = box
    else:
        x0, y0, x1, y1 = box
        y, x = torch.meshgrid(torch.arange(y0, y1).to(table), torch.arange(x0, x1).to(table), indexing="ij")
        places = torch.stack([x + 0.5, y + 0.5], -1)
    flat = F.pad(places, (0, 1), value=1.0).view(-1, 3)
    directions = F.normalize(flat @ table.new_tensor(matrix).T, dim=1)
    origins = table.new_tensor(origin).expand_as(directions)
    points, starts, ends, offsets, _ = sample_rays(
        origins, directions, space.box, space.occupancy, space.step, space.max_samples
    )

    def inside(corners: Sequence[Sequence[float]]) -> Tensor:
        low, high = table.new_tensor(corners)
        return 2 * (points - low) / (high - low) - 1

    flat = inside(space.box)[None, None, :, :2]
    depth = F.grid_sample(space.front[None, None], flat, padding_mode="border", align_corners=False)[0, 0, 0]
    weights = ((points[:, 2] - depth) / space.rise).clamp(0, 1)
    around = inside(space.moved_box)[None, None, None]
    away = F.grid_sample(space.moved[None], around, padding_mode="border", align_corners=True)
    points = points - away.view(3, -1).T
    height, chin, slope, reach = space.neck
    fade = ((points[:, 1] - height - slope * (points[:, 2] - chin).clamp_min(0)) / reach).clamp(0, 1)
    weights = weights * (1 - fade.square() * (3 - 2 * fade))
    encoded = triplane_encode(inside(features.bounds).clamp(-1, 1), table, features.resolutions)
    densities, colors, _ = radiance_mlp(encoded, *network)
    color, opacity, _ = march_rays(offsets, starts, ends, densities * weights, colors)
    return torch.cat([color, opacity[:, None]], 1).view(*places.shape[:-1], 4)
