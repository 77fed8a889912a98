"""What commands take from their surroundings: settings, and a way to say what is wrong."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from urllib.parse import quote

from rich.console import Console

from engine.app.settings import Settings, SettingsError, from_environment

errors = Console(stderr=True)


def fail(message: str, code: int) -> None:
    """Says what is wrong, and ends."""
    errors.out(f"error: {message}", highlight=False)
    sys.exit(code)


def read_settings() -> Settings:
    """The settings, or exit code 2 with everything that is wrong with them."""
    try:
        return from_environment(os.environ)
    except SettingsError as fault:
        fail(str(fault), 2)
        raise


def write_file(file: Path, content: bytes) -> None:
    """Writes what somebody asked for in a file; exit code 2 where it cannot be written."""
    try:
        file.write_bytes(content)
    except OSError as fault:
        fail(f"{file}: {fault.strerror}", 2)


def database_at_hand(settings: Settings) -> str | None:
    """The DSN of a database that somebody runs already; None where one would have to be started."""
    if settings.database_url is not None:
        return settings.database_url
    data = Path(settings.data).absolute()
    if (data / ".s.PGSQL.5432").exists():
        return f"postgresql://viewfinder@/viewfinder?host={quote(str(data))}"
    return None
