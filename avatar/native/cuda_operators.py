"""Registers the CUDA implementations of every operator of this package; fakes and autograd are shared with the CPU."""

from __future__ import annotations

from avatar.native import cuda, mlp, pose, project, rasterization, triplane
from avatar.native import l1_ssim as loss
from avatar.native import march_rays as marching
from avatar.native import ssim as similarity

# operator: implementation
KERNELS = {
    project._project: cuda.project_gaussians,
    project._project_backward: cuda.project_gaussians_backward,
    pose._pose: cuda.pose_gaussians,
    pose._pose_backward: cuda.pose_gaussians_backward,
    triplane._encode: cuda.triplane_encode,
    triplane._encode_backward: cuda.triplane_encode_backward,
    rasterization._bin: cuda.bin_gaussians,
    rasterization._blend: cuda.rasterize,
    rasterization._blend_backward: cuda.rasterize_backward,
    similarity._ssim: cuda.ssim,
    similarity._ssim_backward: cuda.ssim_backward,
    loss._l1_ssim: cuda.l1_ssim,
    mlp._deform: cuda.deform_mlp,
    mlp._deform_backward: cuda.deform_mlp_backward,
    mlp._deform_code: cuda.deform_code,
    marching._march: cuda.march_rays,
    marching._march_backward: cuda.march_rays_backward,
}

for operator, kernel in KERNELS.items():
    operator.register_kernel("cuda", kernel)
