"""From ARKit coefficients to the geometric face channels.

A renderer sees the face through the channels, so whatever is given as coefficients (an emotion, somebody's capture)
has to move them too. How far a coefficient moves this person is regressed on the person's own track. Coefficients that
the person never used have no data there; for those the regression is pulled towards displacement fields that were
designed on MediaPipe's canonical mesh (`avatar.synth.shapes`).
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib.resources import files

import torch
from jaxtyping import Float
from torch import Tensor

from avatar.motion.arkit import ARKIT, MOUTH
from avatar.motion.face_channels import CHANNELS, LIP_CHANNELS
from avatar.motion.motion import Motion

TABLE = "arkit_to_face.json"  # written by `python -m pipelines.arkit_map`
TRUST = 0.1  # deviation of a coefficient from which the person's own track counts for more than the generic field


@dataclass(frozen=True, kw_only=True)
class FaceMap:
    """channels = offset + coefficients @ matrix.

    Attributes:
        matrix: [52, 38] centimetres at a coefficient of 1.
        offset: [38].
    """

    matrix: Tensor
    offset: Tensor

    def __call__(self, arkit: Float[Tensor, "*batch 52"]) -> Float[Tensor, "*batch 38"]:
        """Face channels [..., 38] of coefficients [..., 52]."""
        return self.offset + arkit @ self.matrix

    @staticmethod
    @functools.cache
    def generic() -> FaceMap:
        """The canonical face's."""
        table = json.loads(files("avatar.motion").joinpath(TABLE).read_text())
        matrix = torch.tensor([[table["matrix"][k].get(c, 0.0) for c in CHANNELS] for k in ARKIT])
        return FaceMap(matrix=matrix, offset=torch.zeros(len(CHANNELS)))

    @staticmethod
    def fit(track: Motion) -> FaceMap:
        """The map of the person of a track: ridge regression about the generic matrix.

        Mouth coefficients move mouth channels only, and the others move those they move on the canonical face.
        """
        generic = FaceMap.generic().matrix.double()
        x, y = track.arkit.double(), track.face.double()
        mean_x, mean_y = x.mean(0), y.mean(0)
        x, y = x - mean_x, y - mean_y
        weight = len(x) * TRUST**2
        matrix = generic.clone()
        lips = torch.zeros(len(CHANNELS), dtype=torch.bool)
        lips[list(LIP_CHANNELS)] = True
        mouth = torch.zeros(len(ARKIT), dtype=torch.bool)
        mouth[list(MOUTH)] = True
        for rows, columns in ((mouth, lips), (~mouth, ~lips)):
            part = x[:, rows]
            gram = part.T @ part + weight * torch.eye(part.shape[1], dtype=x.dtype)
            right = part.T @ y[:, columns] + weight * generic[rows][:, columns]
            matrix[rows.nonzero(), columns.nonzero().T] = torch.linalg.solve(gram, right)
        return FaceMap(matrix=matrix.float(), offset=(mean_y - mean_x @ matrix).float())
