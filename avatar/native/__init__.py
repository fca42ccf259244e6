"""Native kernels as torch operators, each with a plain-torch reference (:mod:`avatar.native.reference`)."""

from avatar.native.adam_step import adam_step
from avatar.native.animate_gaussians import animate_gaussians
from avatar.native.bin_gaussians import pair_capacity
from avatar.native.cuda import cuda_status
from avatar.native.deform_mlp import deform_code, deform_mlp
from avatar.native.draw_field import draw_field
from avatar.native.frames import CanonicalGaussians, FieldFeatures, FieldSpace, FrameMotion
from avatar.native.l1_ssim import ImageLoss, l1_ssim
from avatar.native.library import library_status, num_threads, set_num_threads
from avatar.native.march_rays import march_rays
from avatar.native.project_gaussians import project_gaussians
from avatar.native.radiance_mlp import radiance_mlp
from avatar.native.rasterize import draw, rasterize
from avatar.native.sample_rays import RaySamples, pack_occupancy, sample_rays
from avatar.native.skin_gaussians import skin_gaussians
from avatar.native.ssim import ssim
from avatar.native.triplane_encode import triplane_encode

__all__ = [
    "CanonicalGaussians",
    "FieldFeatures",
    "FieldSpace",
    "FrameMotion",
    "ImageLoss",
    "RaySamples",
    "adam_step",
    "animate_gaussians",
    "cuda_status",
    "deform_code",
    "deform_mlp",
    "draw",
    "draw_field",
    "l1_ssim",
    "library_status",
    "march_rays",
    "num_threads",
    "pack_occupancy",
    "pair_capacity",
    "project_gaussians",
    "radiance_mlp",
    "rasterize",
    "sample_rays",
    "set_num_threads",
    "skin_gaussians",
    "ssim",
    "triplane_encode",
]
