"""Settings without a default that commands need: face, outputs and credentials."""

from collections.abc import Iterator

from relayd.config.settings import AkoolSettings, CameraSettings, Settings
from relayd.errors import ConfigError


def require_runnable(settings: Settings) -> None:
    """Raise ConfigError if settings that `run` needs are missing."""
    faults = []
    if not settings.face.image:
        faults.append('face.image = "": missing; give the http(s) URL of the face to put on')
    if not settings.output:
        faults.append("output = []: missing; give at least one [[output]]")
    if settings.on_demand.mode == "always" and not any(
        isinstance(output, CameraSettings) for output in settings.output
    ):
        faults.append(
            'on_demand.mode = "always": needs an [[output]] of kind "camera", whose readers ask'
            ' for a session; give one, or "auto"'
        )
    if faults := faults + list(_missing_credentials(settings.akool)):
        raise ConfigError(faults)


def require_credentials(settings: Settings) -> None:
    """Raise ConfigError if there are no credentials for the service."""
    if faults := list(_missing_credentials(settings.akool)):
        raise ConfigError(faults)


def _missing_credentials(akool: AkoolSettings) -> Iterator[str]:
    if akool.api_key.get_secret_value():
        return
    secret = akool.client_secret.get_secret_value()
    if not akool.client_id and not secret:
        yield (
            "akool.api_key: missing; set AKOOL_API_KEY, the systemd credential akool-api-key,"
            " or client_id and client_secret"
        )
    elif not akool.client_id:
        yield "akool.client_id: missing; client_secret needs it"
    elif not secret:
        yield "akool.client_secret: missing; client_id needs it"
