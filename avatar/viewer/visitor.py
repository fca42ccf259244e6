"""One open page: its sliders, its audio, its view. Nothing of it is shared with another page."""

from __future__ import annotations

import base64
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import viser
from websockets.protocol import State

from avatar import log
from avatar.errors import AvatarError
from avatar.headmotion.loop import POSES
from avatar.infer.controls import Controls
from avatar.infer.planner import plan_motion, speech_of
from avatar.infer.renderer import counts_text
from avatar.infer.sources import frames_within, voice_warning
from avatar.io.audio import SAMPLE_RATE, chunked, load_audio, write_wav
from avatar.motion import Motion
from avatar.motion.emotion import EMOTIONS
from avatar.viewer.controls import Sliders
from avatar.viewer.dial import BEYOND, dial
from avatar.viewer.messages import CheckedConnection

if TYPE_CHECKING:
    from avatar.infer.avatar import Avatar

MAX_SECONDS = 600.0  # of audio in one go: it is sent to the page as a whole
AS_GIVEN = "as given"  # on the command line
RANGES = {"jaw": (0.0, 1.0), "smile": (0.0, 1.0), "blink": (0.0, 1.0),
          "yaw": (-30.0, 30.0), "pitch": (-20.0, 20.0), "roll": (-20.0, 20.0)}  # fmt: skip
STRENGTH, LIPS = (0.0, 1.5), (0.0, 2.0)

Speak = Callable[[np.ndarray, Controls], Iterable[Motion]]  # samples [N] at 16 kHz


def speaker(avatar: Avatar, controls: Controls) -> Speak:
    """What turns samples into the motion of an avatar; its speech network is loaded now.

    Raises:
        AvatarError: The avatar has no speech network that ``controls`` ask for.
    """
    speech = speech_of(avatar, controls.speech, live=False)

    def speak(samples: np.ndarray, how: Controls) -> Iterable[Motion]:
        frames = frames_within(len(samples) / SAMPLE_RATE, avatar.fps)
        return plan_motion(avatar, how, frames=frames, speech=speech).stream(chunked(samples))

    return speak


class Viewed(Protocol):
    """What a page looks at: the part of `avatar.viewer.server.Viewer` that it uses.

    Attributes:
        avatar: What is shown, with ``info`` and ``cone``.
        rest: The frame that is shown while nothing is spoken.
        speak: Turns audio into motion; None where the avatar cannot be driven by audio.
        controls: Those of the command line.
        one_at_a_time: Held while audio is turned into motion.
        head: Point [3] that the page looks at to begin with, metres.
    """

    avatar: Any
    rest: Motion
    speak: Speak | None
    controls: Controls
    one_at_a_time: threading.Lock

    @property
    def head(self) -> np.ndarray: ...


class Visitor:
    """The fields of one page, what it is sent, and what it has been shown.

    Args:
        client: viser's handle; all fields are made in it, not in the server, which would share them.
        connection: The page's websocket.
        viewer: What is looked at.
    """

    def __init__(self, client: viser.ClientHandle, connection: CheckedConnection, viewer: Viewed) -> None:
        self.client, self._connection, self._viewer = client, connection, viewer
        self.shown: tuple[Any, ...] = ()
        self.images = 0
        self.arrived = False  # at the filming camera's place; a page first looks from a place of viser's own
        self._spoken: Motion | None = None
        self._began = 0.0
        self._turn = 0  # counts orders to speak or to stop
        self._busy = threading.Lock()
        self._warned = False
        self._fields: dict[str, Any] = {}
        self._build()
        connection.complain = self.tell

    @property
    def here(self) -> bool:
        """Whether the page is still open."""
        return self._connection.state is State.OPEN

    @property
    def sliders(self) -> Sliders:
        """Where the sliders stand; a page may send any number."""
        return Sliders(**{name: self._number(name, *RANGES[name]) for name in RANGES})

    @property
    def beyond(self) -> bool:
        """Whether the page may look beyond the view limits."""
        return self._fields["beyond"].value is True

    @property
    def controls(self) -> Controls:
        """How the next audio is spoken: what was given, and over that what is chosen on the page."""
        given, added = self._viewer.controls, {}
        emotion, pose = self._choice("emotion", EMOTIONS), self._choice("pose", POSES)
        lips = self._number("lip_scale", *LIPS)
        if emotion:
            added["emotion"] = f"{emotion}:{self._number('strength', *STRENGTH):g}"
        if pose:
            added["pose"] = pose
        if lips != 1:
            added["lip_scale"] = f"{lips:g}"
        return replace(given, **{name: (*getattr(given, name), value) for name, value in added.items()})

    def _number(self, name: str, low: float, high: float) -> float:
        value = float(self._fields[name].value)
        return min(max(value, low), high) if np.isfinite(value) else min(max(0.0, low), high)

    def _choice(self, name: str, known: Iterable[str]) -> str | None:
        """What a list stands at. A page may send any text, and a pose could be the path of a file."""
        value = self._fields[name].value
        return value if value in known else None

    def _build(self) -> None:
        gui, fields = self.client.gui, self._fields
        self.status = gui.add_markdown(counts_text(self._viewer.avatar.info))
        for folder, names, step in (("Face", ("jaw", "smile", "blink"), 0.01), ("Head", ("yaw", "pitch", "roll"), 0.5)):
            with gui.add_folder(folder):
                for name in names:
                    label = name.capitalize() if folder == "Face" else f"{name.capitalize()} (degrees)"
                    fields[name] = gui.add_slider(label, *RANGES[name], step, 0.0)
        fields["beyond"] = gui.add_checkbox(BEYOND, self._viewer.controls.beyond)
        self._dial = gui.add_html(dial(self._viewer.avatar.cone, 0, 0))
        gui.add_button("Reset sliders and view").on_click(lambda _: self.reset())
        with gui.add_folder("Speech"):
            if self._viewer.speak is None:
                self._message = gui.add_markdown("This avatar was made from a video without audio: it cannot speak.")
                return
            fields["emotion"] = gui.add_dropdown("Emotion", (AS_GIVEN, *EMOTIONS))
            fields["strength"] = gui.add_slider("Its strength", *STRENGTH, 0.05, 0.7)
            fields["lip_scale"] = gui.add_slider("Lips", *LIPS, 0.05, 1.0)
            fields["pose"] = gui.add_dropdown("Head motion", (AS_GIVEN, *POSES))
            self._upload = gui.add_upload_button("Speak an audio file", mime_type="audio/*,video/*")
            self._upload.on_upload(lambda event: self._uploaded(event.target.value))
            self._connection.upload_field = self._upload._impl.uuid  # pyright: ignore[reportPrivateUsage]  # viser has no other
            gui.add_button("Stop").on_click(lambda _: self.hush())
            self._message = gui.add_markdown("")
            self._player = gui.add_html("")

    def tell(self, sentence: str) -> None:
        """Show a sentence beside the fields for speech."""
        if self.here:
            self._message.content = sentence

    def point(self, azimuth: float, elevation: float) -> None:
        """Move the dot of the dial to the view that is shown, degrees."""
        content = dial(self._viewer.avatar.cone, azimuth, elevation)
        if self._dial.content != content:
            self._dial.content = content

    def look(self, position: np.ndarray, look_at: np.ndarray) -> None:
        """Move the page's camera; world points [3] in its units."""
        camera = self.client.camera
        camera.position = position
        camera.look_at = look_at

    def reset(self) -> None:
        """Set all sliders to zero and the camera to the one that filmed."""
        for name in RANGES:
            self._fields[name].value = 0.0
        self.look(np.zeros(3), self._viewer.head)
        self.client.camera.up_direction = np.array([0.0, -1.0, 0.0])

    def _uploaded(self, file: viser.UploadedFile) -> None:
        content, file.content = file.content, b""  # viser would keep it
        if not content:  # not taken, and the page says so
            return
        name = Path(file.name).name[:80]
        try:
            with tempfile.TemporaryDirectory(prefix="avatar-view-") as folder:
                path = Path(folder) / "upload"
                path.write_bytes(content)
                del content
                self.say(path, name)
        except OSError as error:
            self.failed("An upload could not be written to the disk", error)
            self.tell(f"**{name} could not be written to the disk: {error.strerror}.**")

    def say(self, path: Path, name: str) -> None:
        """Speak an audio file: the motion is computed first, then image and audio start together.

        Args:
            path: The file; it is decoded once, as far as the limit goes, and nothing but the samples is used.
            name: What the page calls it.
        """
        if not self._busy.acquire(blocking=False):
            self.tell(f"{name} is not taken: other audio is still being listened to. Wait for it, or press Stop.")
            return
        try:
            self.hush()
            self._say(path, name)
        except AvatarError as error:
            self.tell(f"**{str(error).replace(str(path), name)}**")
        except Exception as error:  # it must not end the page, and viser would print a traceback for each
            self.failed("Audio could not be spoken", error)
            self.tell(f"**{name} cannot be spoken; the terminal says why.**")
        finally:
            self._busy.release()

    def _say(self, path: Path, name: str) -> None:
        speak, turn = self._viewer.speak, self._turn
        if speak is None:
            return
        samples = load_audio(path, most_seconds=MAX_SECONDS)
        audio = path.with_name("speech.wav")
        write_wav(audio, samples)
        blocks = []
        self.tell(f"Listening to {name} ...")
        with self._viewer.one_at_a_time:
            # Limits are set when a frame is shown, so that the page can change its mind.
            for block in speak(samples, replace(self.controls, beyond=True)):
                if turn != self._turn or not self.here:
                    self.tell("")
                    return
                blocks.append(block)
        spoken = Motion.cat(blocks)
        warning = voice_warning(path).replace(str(path), name)
        self.tell(f"{name}, {len(spoken) / spoken.fps:.1f} s. {warning or 'If you hear nothing, press play below.'}")
        self._player.content = f'<audio autoplay controls style="width:100%" src="{_data_url(audio)}"></audio>'
        self._spoken, self._began = spoken, time.monotonic()

    def hush(self) -> None:
        """Stop speaking, or listening to what is to be spoken."""
        self._turn += 1
        self._spoken = None
        if self._viewer.speak is not None and self.here:
            self._player.content = ""
            self.tell("")

    def now(self) -> tuple[Motion, int]:
        """The motion and its frame to show at this moment; frames are skipped where rendering is slower than audio."""
        spoken = self._spoken
        if spoken is None:
            return self._viewer.rest, 0
        index = int((time.monotonic() - self._began) * spoken.fps)
        if index >= len(spoken):
            self._spoken = None
            return self._viewer.rest, 0
        return spoken, index

    def failed(self, what: str, error: Exception) -> None:
        """Note on the terminal, once for a page, what went wrong with it."""
        if not self._warned:
            self._warned = True
            log.warn(f"{what} for one of the pages: {type(error).__name__}: {error}")


def _data_url(path: Path) -> str:
    return "data:audio/wav;base64," + base64.b64encode(path.read_bytes()).decode()
