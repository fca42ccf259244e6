"""MediaPipe's canonical face mesh, which every other mesh of the package refers to."""

from __future__ import annotations

import zipfile

import numpy as np

from avatar.assets import protobuf, store
from avatar.errors import AvatarError


def canonical_face() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """MediaPipe's canonical face mesh, read from the metadata inside ``face_landmarker``.

    Returns:
        Vertices float32 [468, 3] (centimetres, x to the person's left, y up, z out of the face), texture coordinates
        float32 [468, 2] (v down) and triangles int64 [898, 3].

    Raises:
        AvatarError: The asset is not available.
    """
    with zipfile.ZipFile(store.fetch("face_landmarker")) as task:
        metadata = task.read("geometry_pipeline_metadata_landmarks.binarypb")
    # The first field of the metadata is the mesh: interleaved floats x y z u v in field 3, indices in field 4.
    try:
        mesh = next(value for field, value in protobuf.blobs(metadata) if field == 1)
        floats = [value for field, value in protobuf.blobs(mesh) if field == 3]
        indices = [value for field, value in protobuf.fields(mesh) if field == 4]
    except (ValueError, StopIteration) as error:
        raise AvatarError("The metadata of face_landmarker cannot be read.", why=str(error)) from None
    table = np.frombuffer(b"".join(floats), "<f4").reshape(-1, 5).astype(np.float32)
    return table[:, :3].copy(), table[:, 3:].copy(), np.array(indices, np.int64).reshape(-1, 3)
