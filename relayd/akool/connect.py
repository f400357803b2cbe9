"""Makes the service's client and the journal from the settings."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from relayd.akool.client import AkoolClient
from relayd.akool.credentials import ApiKey, ClientSecret, Credentials
from relayd.akool.journal import Journal
from relayd.akool.models import Face
from relayd.config.paths import state_directory
from relayd.config.requirements import require_credentials
from relayd.config.settings import AkoolSettings, Settings
from relayd.http.client import HttpClient, require_reachable


@asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[AkoolClient]:
    """Yield a client of the service, as configured; its connections are closed after the block.

    Raises ConfigError for missing credentials, and for a proxy variable or CA file of the
    environment that cannot be used.
    """
    require_credentials(settings)
    await asyncio.to_thread(require_reachable, settings.akool.base_url.reveal())
    async with HttpClient() as http:
        yield AkoolClient(settings.akool.base_url.reveal(), _credentials(settings.akool), http)


def open_journal(settings: Settings) -> Journal:
    """Return the journal in the settings' state directory."""
    return Journal(state_directory(settings))


async def detect_faces(settings: Settings, url: str) -> list[Face]:
    """Ask the service for the faces in an image."""
    async with connect(settings) as client:
        return await client.detect_faces(url)


def _credentials(akool: AkoolSettings) -> Credentials:
    if key := akool.api_key.get_secret_value():
        return ApiKey(key)
    return ClientSecret(akool.client_id, akool.client_secret.get_secret_value())
