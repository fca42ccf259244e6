"""Serve live avatars: people talk with them in a browser, programs through WebRTC, WebSocket or HTTP.

An option that ends in a metavariable VALUE[@TIME] can be given again for other times: `1.5@2.0-3.5` in seconds of the
session, `1.5@4-` until its end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from avatar import log
from avatar.device import DeviceName
from avatar.errors import AvatarError
from avatar.infer.controls import Controls

if TYPE_CHECKING:
    from avatar.serve.agent import AgentSettings
    from avatar.serve.hub import Settings
    from avatar.serve.start import Place

GROUPS = {
    "move": ("motion", "retarget", "pose", "pose_guidance", "pose_noise", "pose_scale", "idle", "style", "beyond"),
    "expression": ("emotion", "emotion_limit", "lip_scale", "blink", "gaze"),
    "timeline": ("words", "timeline", "print_timeline", "seed"),
    "who may connect": ("host", "port", "token", "origin", "tls_certificate", "tls_key", "sessions", "session_minutes"),
    "video and network": ("size", "codec", "bitrate", "ice_server", "device"),
    "conversation": ("agent", "agent_model", "agent_transcriber", "agent_instructions"),
    "several processes or machines": ("ray", "replicas", "max_replicas", "replica_cpus"),
    "text to speech": ("tts", "voice", "language"),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """Live avatars for browsers and programs."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """RUN folders of `avatar create` or `avatar train`; the first one is the default."""
    host: str = "127.0.0.1"
    """Address to listen on; the default is reachable from this machine only. Any other one needs --token."""
    port: int = 8080
    """Port to listen on."""
    token: str = ""
    """Secret that every request has to carry; 16 characters or more."""
    origin: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="URL")] = ()
    """Origin of another page that may connect, such as https://example.org; may be given again."""
    tls_certificate: Path | None = None
    """Certificate in PEM: serve https."""
    tls_key: Path | None = None
    """Key of --tls-certificate in PEM."""
    sessions: int = 4
    """Listeners at once, of each replica with --ray; more are answered 503."""
    session_minutes: float = 60.0
    """A session ends after that."""
    size: int | None = None
    """Longer side of the image in pixels; smaller is faster. Default: as trained."""
    codec: Literal["h264", "vp8"] | None = None
    """Video codec. Default: vp8 over WebRTC, which costs less to encode, and h264 over a WebSocket."""
    bitrate: float = 1.5
    """Megabits per second of video."""
    ice_server: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="URL")] = ()
    """STUN or TURN server for WebRTC, such as stun:example.org or turn:USER:PASSWORD@example.org:3478; may be given
    again."""
    device: DeviceName = "auto"
    """Where to render: auto takes a GPU where there is one and the CUDA library is built."""
    agent: str = ""
    """Address of an OpenAI-compatible server that answers, such as http://localhost:11434/v1, or of a realtime
    endpoint, wss://HOST/v1/realtime. The environment variable AVATAR_AGENT_KEY holds its API key."""
    agent_model: str = ""
    """Model of --agent that answers."""
    agent_transcriber: str = ""
    """Model of --agent that transcribes the microphone, such as whisper-1. Without it the agent is asked in writing."""
    agent_instructions: str = ""
    """System prompt of --agent. Default: to answer in short spoken sentences."""
    ray: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    """Address of a Ray cluster whose processes serve. Give auto for the one on this machine, or local for processes
    here. --device cuda gives each replica a GPU."""
    replicas: int = 2
    """With --ray: how many replicas there are at least."""
    max_replicas: int | None = None
    """With --ray: how many there are at most; one more starts before all places are taken. Default: --replicas."""
    replica_cpus: int = 1
    """With --ray: processors of each replica."""
    tts: str = "hibari"
    """Text-to-speech engine: hibari, or that of an installed package."""
    voice: str | None = None
    """Voice of the texts; default: the engine's own choice."""
    language: str = "en"
    """Language of the texts, two letters of ISO 639-1."""
    controls: tyro.conf.OmitArgPrefixes[Controls] = field(default_factory=Controls)


def main(config: Config) -> None:
    """Load the avatars and serve until Ctrl-C."""
    from avatar.serve.start import MOST_SESSIONS, Place, load_characters, load_voice, require_packages, serve

    require_packages()
    from avatar.data.bundle import run_folder
    from avatar.data.consent import require as require_consent
    from avatar.data.run import require_run
    from avatar.io.hosts import is_loopback
    from avatar.serve.access import check_settings
    from avatar.serve.hub import Settings

    for name, value, low, high in (
        ("port", config.port, 0, 65535), ("sessions", config.sessions, 1, MOST_SESSIONS),
        ("session-minutes", config.session_minutes, 0.1, 1e5), ("bitrate", config.bitrate, 0.1, 50),
        ("size", config.size or 64, 32, 4096),
    ):  # fmt: skip
        if not low <= value <= high:
            raise AvatarError(f"--{name} {value:g} is out of range.", fix=f"It goes from {low:g} to {high:g}.")
    if not config.runs:
        raise AvatarError("There is no RUN to serve.", fix="Give one: avatar serve runs/me")
    if config.controls.print_timeline is not None:
        raise AvatarError("--print-timeline is not for the live service.", fix="Use `avatar render`.")
    agent = agent_settings(config)
    settings = Settings(
        sessions=config.sessions, session_seconds=60 * config.session_minutes, codec=config.codec,
        bits_per_second=round(1e6 * config.bitrate), token=config.token, host=config.host,
        ice_servers=tuple(map(ice_server, config.ice_server)), origins=config.origin, agent=agent,
    )  # fmt: skip
    check_settings(settings)
    place = Place(host=config.host, port=config.port, certificate=config.tls_certificate, key=config.tls_key)
    place.tls()
    if not is_loopback(config.host):
        for run in map(run_folder, config.runs):
            require_run(run)
            require_consent(run, "live", "to be served beyond this machine")
    if config.ray is not None:
        _serve_on_ray(config, config.ray, settings, place)
        return
    characters = load_characters(config.runs, config.controls, size=config.size, device=config.device)
    serve(characters, load_voice(config.tts, config.voice, config.language), settings, place)
    log.info("Stopped.")


def agent_settings(config: Config) -> AgentSettings | None:
    """Which agent answers, if one does."""
    from avatar.serve.agent import INSTRUCTIONS, AgentSettings, key_of_environment

    if not config.agent:
        for name in ("model", "transcriber", "instructions"):
            if getattr(config, f"agent_{name}"):
                raise AvatarError(f"--agent-{name} needs an agent.", fix="Give its address with --agent.")
        return None
    agent = AgentSettings(
        url=config.agent, model=config.agent_model, transcriber=config.agent_transcriber,
        instructions=config.agent_instructions or INSTRUCTIONS, key=key_of_environment(),
    )  # fmt: skip
    agent.check()
    return agent


def _serve_on_ray(config: Config, address: str, settings: Settings, place: Place) -> None:
    """Serve from replicas until Ctrl-C."""
    from avatar.serve.on_ray import Cluster, serve_on_ray
    from avatar.serve.replica import Cast

    most = config.replicas if config.max_replicas is None else config.max_replicas
    cluster = Cluster(address=address, least=config.replicas, most=most, processors=config.replica_cpus)
    cast = Cast(
        folder=Path.cwd(), runs=config.runs, controls=config.controls, size=config.size, device=config.device,
        tts=config.tts, voice=config.voice, language=config.language,
    )  # fmt: skip
    serve_on_ray(cluster, cast, settings, place)
    log.info("Stopped.")


def ice_server(text: str) -> dict[str, str]:
    """Read ``stun:HOST``, or ``turn:USER:PASSWORD@HOST:PORT``, as a browser takes it."""
    kind, _, rest = text.partition(":")
    secret, _, host = rest.rpartition("@")
    if kind not in ("stun", "stuns", "turn", "turns") or not host:
        raise AvatarError(
            f"--ice-server {text!r} is not understood.", fix="Give stun:HOST or turn:USER:PASSWORD@HOST:PORT."
        )
    if not secret:
        return {"urls": f"{kind}:{host}"}
    user, _, password = secret.partition(":")
    return {"urls": f"{kind}:{host}", "username": user, "credential": password}
