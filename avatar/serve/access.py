"""Who gets in: requests under this server's own name, from its own page, with the token where there is one.

Any page that is open in a browser can send requests to servers on the same machine, and under a name that it resolves
anew (DNS rebinding) it can read their answers. So every request is checked before anything is done for it.
"""

from __future__ import annotations

import hmac
import re
from urllib.parse import urlsplit

from aiohttp import web

from avatar.errors import AvatarError
from avatar.io.hosts import HOST, is_loopback
from avatar.serve.hub import Settings

OPEN = re.compile(r"/(healthz|openapi\.json|page/[^/]+)?")  # the same for everybody, and no secret
LEAST_TOKEN = 16  # characters
KEY_PROTOCOL = "openai-insecure-api-key."  # before the token, where it travels as a subprotocol


def check_settings(settings: Settings) -> None:
    """Refuse to listen to other machines without a token.

    Raises:
        AvatarError: The address is not loopback and there is no token, or the token is too short.
    """
    if settings.token and (len(settings.token) < LEAST_TOKEN or not settings.token.isascii()):
        raise AvatarError(
            f"--token is shorter than {LEAST_TOKEN} characters, or not ASCII.",
            fix="Make one: python -c 'import secrets; print(secrets.token_urlsafe(24))'",
        )
    if not settings.token and not is_loopback(settings.host):
        raise AvatarError(
            f"Other machines can reach --host {settings.host}, so a --token is needed.",
            fix="Make one: python -c 'import secrets; print(secrets.token_urlsafe(24))'",
        )


def refusal(request: web.BaseRequest, settings: Settings) -> tuple[int, str] | None:
    """Status and reason why a request may not come in; None where it may.

    Without a token, only a request for a loopback name is one for this server: another name may be resolved by somebody
    else. With a token no page can guess it, so the name does not matter.
    """
    hosts, origins = request.headers.getall("Host", []), request.headers.getall("Origin", [])
    match = HOST.fullmatch(hosts[0].lower()) if len(hosts) == 1 else None
    if match is None or (not settings.token and not is_loopback(match["v6"] or match["name"])):
        return 403, "This request is for another server."
    if len(origins) > 1 or (origins and not _own(origins[0], hosts[0], settings)):
        return 403, "This request comes from another page."
    if OPEN.fullmatch(request.path):
        return None
    # Bytes that are no UTF-8 come as lone surrogates.
    if settings.token and not hmac.compare_digest(_given(request).encode(errors="replace"), settings.token.encode()):
        return 401, "The token is missing or wrong. Open the whole address that was printed."
    return None


def cross_origin(request: web.BaseRequest, settings: Settings) -> dict[str, str]:
    """Headers that let a page of another origin read the answer: of those that ``--origin`` allows, and no other."""
    origin = request.headers.get("Origin", "")
    if not _allowed(origin, settings):
        return {}
    return {
        "Access-Control-Allow-Origin": origin, "Vary": "Origin", "Access-Control-Max-Age": "600",
        "Access-Control-Allow-Methods": "GET, POST, PATCH",
        "Access-Control-Allow-Headers": "Authorization, Content-Type",
    }  # fmt: skip


def _allowed(origin: str, settings: Settings) -> bool:
    return origin.lower() in (known.lower().rstrip("/") for known in settings.origins)


def _own(origin: str, host: str, settings: Settings) -> bool:
    """Whether a page belongs to this server; a proxy in front of it may add TLS."""
    if _allowed(origin, settings):
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _given(request: web.BaseRequest) -> str:
    header = request.headers.get("Authorization", "")
    if header.startswith("Bearer "):
        return header.removeprefix("Bearer ").strip()
    if key := request.headers.get("api-key", ""):  # of Azure's clients
        return key.strip()
    # A browser's WebSocket can send no header. OpenAI's clients there send the key as a subprotocol.
    for protocol in request.headers.get("Sec-WebSocket-Protocol", "").split(","):
        if protocol.strip().startswith(KEY_PROTOCOL):
            return protocol.strip().removeprefix(KEY_PROTOCOL)
    return request.query.get("access_token", "")
