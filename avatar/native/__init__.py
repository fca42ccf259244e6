"""Native kernels as torch operators, each with a plain-torch reference (:mod:`avatar.native.reference`)."""

import avatar.native.cuda_operators  # noqa: F401 - registers them
from avatar.native.adam import adam_step
from avatar.native.cuda import cuda_status, pair_capacity
from avatar.native.l1_ssim import PictureLoss, l1_ssim
from avatar.native.library import library_status, num_threads, set_num_threads
from avatar.native.march_rays import march_rays
from avatar.native.mlp import deform_code, deform_mlp
from avatar.native.pose import pose_gaussians
from avatar.native.project import project_gaussians
from avatar.native.rasterization import rasterize
from avatar.native.ssim import ssim
from avatar.native.triplane import triplane_encode

__all__ = [
    "PictureLoss",
    "adam_step",
    "cuda_status",
    "deform_code",
    "deform_mlp",
    "l1_ssim",
    "library_status",
    "march_rays",
    "num_threads",
    "pair_capacity",
    "pose_gaussians",
    "project_gaussians",
    "rasterize",
    "set_num_threads",
    "ssim",
    "triplane_encode",
]
