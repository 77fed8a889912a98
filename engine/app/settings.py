"""Settings from environment variables: read once, all problems at once, secrets never shown.

Any of them may come from a file instead: NAME_FILE names it, which keeps secrets out of the
environment.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

PREFIX = "VIEWFINDER_"
PUBLISHED = "db"
"""As VIEWFINDER_RULES: what was published, instead of a folder."""
KEYS_FILE = "keys.json"


class SettingsError(ValueError):
    """Everything that is wrong with the settings, a line each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("the settings need mending:\n" + "\n".join(f"  {p}" for p in problems))
        self.problems = problems


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is told from outside. None where nothing was said."""

    database_url: str | None = None
    data: str = ".viewfinder"
    rules: str = "rules"
    models: str = "models"
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    write_keys: tuple[str, ...] = ()
    server_keys: tuple[str, ...] = ()
    admin_token: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    user_tokens: Literal["off", "optional", "required"] = "off"
    user_token_key: str | None = None
    apns_url: str | None = None
    apns_key_file: str | None = None
    apns_key_id: str | None = None
    apns_team_id: str | None = None
    apns_topic: str | None = None
    fcm_url: str = "https://fcm.googleapis.com"
    fcm_credentials_file: str | None = None
    webpush_key_file: str | None = None
    webpush_subject: str | None = None
    weather_url: str | None = None
    receivers_allow: tuple[str, ...] = ()
    clock: Literal["system", "replay"] = "system"
    silence_minutes: int = 30
    cache_mb: int = 256

    def __repr__(self) -> str:
        return f"Settings(host={self.host!r}, port={self.port}, …)"


class Setting(msgspec.Struct, frozen=True):
    """One variable: what reads it, and a line of help."""

    name: str
    read: Callable[[str], Any]
    help: str

    @property
    def variable(self) -> str:
        return PREFIX + self.name.upper()


def _text(value: str) -> str:
    return value


def _names(value: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in value.split(",") if part.strip())
    if not found:
        raise ValueError("needs at least one key, comma-separated")
    return found


def _hosts(value: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in value.split(",") if part.strip())
    from engine.adapters.addresses import allowed  # loads asyncio, which few commands need

    allowed(found)
    return found


def _whole(lowest: int, highest: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not value.strip().isdecimal() or not lowest <= int(value) <= highest:
            raise ValueError(f"must be a whole number from {lowest} to {highest}, not {value!r}")
        return int(value)

    return read


def _one_of(*allowed: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}, not {value!r}")
        return value

    return read


def _url(*schemes: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in schemes or not (parts.netloc or "host=" in parts.query):
            raise ValueError(f"must be a URL that starts with {' or '.join(s + '://' for s in schemes)}")
        return value

    return read


_LATER = "accepted and not used yet"
_http = _url("http", "https")

SETTINGS: tuple[Setting, ...] = (
    Setting(
        "database_url",
        _url("postgres", "postgresql"),
        "PostgreSQL 15 to 18; without it the embedded one runs in the data folder",
    ),
    Setting("data", _text, "the data folder"),
    Setting("rules", _text, "the workspace's folder; db: what `viewfinder publish` made active"),
    Setting("models", _text, "the models' folder"),
    Setting("host", _text, "the address to listen on"),
    Setting("port", _whole(0, 65535), "the port to listen on; 0 takes a free one"),
    Setting("workers", _whole(1, 64), "processes that share the port"),
    Setting("write_keys", _names, "public keys, for apps; comma-separated"),
    Setting("server_keys", _names, "secret keys, for the business's servers; comma-separated"),
    Setting("admin_token", _text, "the token for /admin"),
    Setting("tls_cert", _text, "PEM file; with VIEWFINDER_TLS_KEY serves https"),
    Setting("tls_key", _text, "PEM file"),
    Setting("user_tokens", _one_of("off", "optional", "required"), "only off for now"),
    Setting("user_token_key", _text, "PEM public key; " + _LATER),
    Setting("apns_url", _http, _LATER),
    Setting("apns_key_file", _text, _LATER),
    Setting("apns_key_id", _text, _LATER),
    Setting("apns_team_id", _text, _LATER),
    Setting("apns_topic", _text, _LATER),
    Setting("fcm_url", _http, "another address of FCM, such as a local stand-in"),
    Setting("fcm_credentials_file", _text, "the service account's JSON file; with it pushes go out by FCM"),
    Setting("webpush_key_file", _text, _LATER),
    Setting("webpush_subject", _text, _LATER),
    Setting(
        "weather_url",
        _http,
        "where the weather is read, such as https://api.open-meteo.com; without it rules know none",
    ),
    Setting(
        "receivers_allow",
        _hosts,
        "hosts and networks inside that receivers may be at, such as crm.example,10.2.0.0/16,127.0.0.1; "
        "only there may they be http:// rather than https://",
    ),
    Setting(
        "clock",
        _one_of("system", "replay"),
        "replay: the pipeline's clock follows the events' sentAt; on loopback only",
    ),
    Setting(
        "silence_minutes",
        _whole(1, 1440),
        "minutes without a fix after which nobody knows where a person is",
    ),
    Setting("cache_mb", _whole(1, 1_000_000), "memory for cached profiles, MB"),
)


def from_environment(environment: Mapping[str, str]) -> Settings:
    """The settings that the environment gives.

    Raises:
        SettingsError: with everything that is wrong.
    """
    known = {setting.variable: setting for setting in SETTINGS}
    from_files = {f"{name}_FILE": name for name in known}
    problems: list[str] = []
    values: dict[str, Any] = {}
    for variable in sorted(v for v in environment if v.startswith(PREFIX)):
        text, name = environment[variable], variable
        if variable not in known and variable in from_files:
            name = from_files[variable]
            if name in environment:
                problems.append(f"{variable}: {name} is set too; set one of them")
                continue
            try:
                text = Path(text).read_text("utf-8").strip()
            except (OSError, UnicodeDecodeError) as fault:
                problems.append(f"{variable}: cannot be read: {_why(fault)}")
                continue
            if not text:
                problems.append(f"{variable}: {environment[variable]} is empty")
                continue
        elif variable not in known:
            problems.append(
                f"{variable}: there is no such setting; {_meant(variable, [*known, *from_files])}"
            )
            continue
        setting = known[name]
        try:
            values[setting.name] = setting.read(text)
        except ValueError as fault:
            problems.append(f"{variable}: {fault}")
    settings = Settings(**values)
    problems += _together(settings)
    if problems:
        raise SettingsError(problems)
    return settings


def _meant(variable: str, known: list[str]) -> str:
    """Compared without the prefix, which makes everything alike."""
    names = [name.removeprefix(PREFIX) for name in known]
    close = difflib.get_close_matches(variable.removeprefix(PREFIX).upper(), names, n=1)
    return f"did you mean {PREFIX}{close[0]}?" if close else "see viewfinder serve --help"


def _why(fault: Exception) -> str:
    return fault.strerror or str(fault) if isinstance(fault, OSError) else "it is not UTF-8"


def _together(settings: Settings) -> list[str]:
    """What single settings allow but their combination does not."""
    problems: list[str] = []
    if (settings.tls_cert is None) != (settings.tls_key is None):
        problems.append("VIEWFINDER_TLS_CERT and VIEWFINDER_TLS_KEY: set both or none")
    if settings.user_tokens != "off":
        problems.append("VIEWFINDER_USER_TOKENS: user tokens are not supported yet; leave it off")
    elif not is_loopback(settings.host):
        problems.append(
            f"VIEWFINDER_HOST: {settings.host} is not loopback, and without user tokens any app may claim "
            "any user_id; they are not supported yet: listen on 127.0.0.1"
        )
    if not is_loopback(settings.host):
        if settings.clock == "replay":
            problems.append("VIEWFINDER_CLOCK: a replay clock is refused on any host but loopback")
        missing = [s for s in ("write_keys", "server_keys", "admin_token") if not getattr(settings, s)]
        problems += [f"{PREFIX}{name.upper()}: must be set on any host but loopback" for name in missing]
    shared = set(settings.write_keys) & set(settings.server_keys)
    if shared:
        problems.append("VIEWFINDER_WRITE_KEYS and VIEWFINDER_SERVER_KEYS: a key is in both")
    if settings.admin_token in (*settings.write_keys, *settings.server_keys):
        problems.append("VIEWFINDER_ADMIN_TOKEN: a key has the same text; apps hold keys")
    return problems


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def table() -> str:
    """All settings with their defaults, for `--help`."""
    defaults = Settings()
    lines = []
    for setting in SETTINGS:
        default = getattr(defaults, setting.name)
        shown = f" [{default}]" if default not in (None, ()) else ""
        lines.append(f"{setting.variable}{shown}: {setting.help}")
    return "\n\n".join(lines)


class _Keys(msgspec.Struct, frozen=True):
    write_key: str
    server_key: str
    admin_token: str

    def __repr__(self) -> str:
        return "_Keys(…)"


def load_or_create_keys(settings: Settings) -> tuple[Settings, bool]:
    """Settings with keys, and whether keys were made now.

    What is not set comes from the data folder; what is not there either is made and kept there,
    readable by its owner only.

    Raises:
        SettingsError: the keys' file cannot be read or written.
    """
    if settings.write_keys and settings.server_keys and settings.admin_token:
        return settings, False
    file = Path(settings.data) / KEYS_FILE
    try:
        made = not file.exists()
        if made:
            keys = _Keys(*(secrets.token_urlsafe(24) for _ in range(3)))
            file.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as kept:
                kept.write(msgspec.json.encode(keys))
        else:
            keys = msgspec.json.decode(file.read_bytes(), type=_Keys)
            file.chmod(0o600)  # a restored copy may have been made readable for others
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as fault:
        why = _why(fault) if isinstance(fault, OSError) else "it is not what was written there"
        raise SettingsError([f"{file}: cannot be used: {why}"]) from fault
    return msgspec.structs.replace(
        settings,
        write_keys=settings.write_keys or (keys.write_key,),
        server_keys=settings.server_keys or (keys.server_key,),
        admin_token=settings.admin_token or keys.admin_token,
    ), made
