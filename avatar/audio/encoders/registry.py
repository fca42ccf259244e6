"""Speech encoders by name, and the encoder that a checkpoint was trained with."""

from __future__ import annotations

from typing import Any

from avatar.audio.encoders.base import AudioEncoder, SpeechEncoder
from avatar.checks import Record, Where
from avatar.errors import AvatarError
from avatar.log import warn
from avatar.registry import Registry

ENCODERS: Registry[AudioEncoder] = Registry(
    "speech encoder",
    "avatar.encoders",
    {
        "mel": "avatar.audio.encoders.mel:MelEncoder",
        "moonshine": "avatar.audio.encoders.moonshine:MoonshineEncoder",
        "whisper": "avatar.audio.encoders.whisper:WhisperEncoder",
    },
    ("OPTIONS", "config", "open"),
)
register_encoder = ENCODERS.register
BEST, WITHOUT_ASSETS = "whisper+mel", "mel"  # what "auto" chooses, and where Whisper is not available
_MOST_PARTS = 8  # in what is read


def build_encoder(config: Any, where: Where = "The configuration") -> SpeechEncoder:
    """Make the encoder that a checkpoint describes.

    Args:
        config: As `SpeechEncoder.config`.
        where: What an error names: the file that it comes from.

    Raises:
        AvatarError: A name is unknown, an option is wrong, or a pretrained part is not available.
    """
    record, place = Record(config, f"{where}: encoder"), f"{where}: encoder"
    parts = []
    for part in record.list("parts", [record.data]):
        about = Record(part, place)
        name = about.text("name")
        if name not in (known := ENCODERS.names()):
            raise AvatarError(
                f"{place}: there is no speech encoder {name!r}.",
                why=f"Known are {', '.join(known)}.",
                fix="Install the package that brings it.",
            )
        encoder: Any = ENCODERS.get(name)
        options = {option: ends for option, ends in encoder.OPTIONS.items() if option in about.data}
        parts.append(encoder(**{option: about.number(option, *ends) for option, ends in options.items()}))
    if not 0 < len(parts) <= _MOST_PARTS:
        raise AvatarError(f"{place} has {len(parts)} parts, not 1 to {_MOST_PARTS}.")
    return SpeechEncoder(parts)


def speech_encoder(name: str = "auto") -> SpeechEncoder:
    """Make an encoder by its name.

    Args:
        name: A registered name, or several joined by ``+``. ``auto``: Whisper with mel energies; mel energies alone,
            with a warning, where Whisper is not available.

    Raises:
        AvatarError: There is no such encoder, or its weights are not available.
    """
    if name != "auto":
        return SpeechEncoder([_made(part) for part in name.split("+")])
    try:
        return speech_encoder(BEST)
    except AvatarError as error:
        warn(f"{error} Going on with plain mel energies as speech features: the lips will follow the audio less well.")
        return speech_encoder(WITHOUT_ASSETS)


def check_encoder(name: str) -> None:
    """Refuse the name of an encoder that does not exist, without making one.

    Raises:
        AvatarError: See :func:`speech_encoder`.
    """
    for part in BEST.split("+") if name == "auto" else name.split("+"):
        ENCODERS.get(part)


def _made(name: str) -> AudioEncoder:
    encoder: Any = ENCODERS.get(name)
    return encoder()
