"""Native CPU kernels as torch operators, each with a plain-torch reference (:mod:`avatar.native.reference`)."""

from avatar.native.adam import adam_step
from avatar.native.library import library_status, num_threads, set_num_threads
from avatar.native.loss import PictureLoss, l1_ssim
from avatar.native.mlp import deform_code, deform_mlp
from avatar.native.project import project_gaussians
from avatar.native.rasterization import rasterize
from avatar.native.similarity import ssim
from avatar.native.triplane import triplane_encode

__all__ = [
    "PictureLoss",
    "adam_step",
    "deform_code",
    "deform_mlp",
    "l1_ssim",
    "library_status",
    "num_threads",
    "project_gaussians",
    "rasterize",
    "set_num_threads",
    "ssim",
    "triplane_encode",
]
