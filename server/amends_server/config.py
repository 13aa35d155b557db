"""Settings, and the limits of the server with their reasons.

A setting is taken from the first of: an argument, the environment (`AMENDS_…`), a TOML file (the one that
`AMENDS_CONFIG` names, else `amends.toml` in the current folder), its default.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource
from pydantic_settings import SettingsError as UnreadableSetting

from amends_server.addresses import is_allowed, parse_address, parse_pattern
from amends_server.engine.payload import PAYLOAD_BYTES_MAX as PAYLOAD_BYTES_MAX

PORT = 7242
"""S-A-G-A on a phone."""

ID_LENGTH_MAX = 128
"""Of a saga's id and a namespace: room for a UUID with a long prefix, and short enough for an index."""

LABELS_MAX = 16
"""Of a saga: each is a row in the store that is looked for."""

LABEL_LENGTH_MAX = 128
"""Of a label's key or value: what people filter by is short."""

REASON_LENGTH_MAX = 1_000
"""Of an operator's reason: a paragraph, which stays in the journal for ever."""

PAGE_SIZE = 50
"""Entries on a page if the caller does not say: a screen or two."""

PAGE_SIZE_MAX = 500
"""Entries on a page at the most: what is longer is cut to this, as AIP-158 says. Such a page takes some 15 ms."""

STUCK_ON_PAGE_MAX = 50
"""Of them STUCK: each shows what blocks it, for which its journal is read and folded, in a quarter of a millisecond."""

BULK_LIMIT = 100
"""Sagas that a bulk form changes in one call if the caller does not say."""

BULK_LIMIT_MAX = 1_000
"""And at the most: a call that takes seconds."""

BULK_FAILURES_MAX = 1_000
"""Sagas that a bulk form names because it could not change them; nobody reads on, and the answer has to fit."""

PAGE_TOKEN_LENGTH_MAX = 1_000
"""Ours are far shorter."""

TAKEOVER_S = 30.0
"""How long a request waits for a saga whose orchestrator is gone: two leases, and some time to read it."""

SAGAS_ACTIVE_MAX = 10_000
"""Sagas in memory at the same time: some tens of megabytes. More starts are refused until some have ended."""

PLACES_FREE_PARTS = 64
"""Of these places each participant may take one in so many as long as any is free, however crowded memory is, so that
its sagas get on. If dozens of participants hang at the same time, none may be free until their calls time out."""

PATIENCE_S = 10
"""A participant whose answers come so fast that all sagas that wait for it are through by then is in nobody's way."""

PUT_OFF_S = 5
"""A call that is put off, because too many sagas wait for its participant, is made this much later at the earliest:
longer than a saga is kept in memory that is half full."""

PUT_OFFS_PER_S = 250
"""And so many sagas whose calls were put off come back in a second, for each is read and written again: a part of what
a core can do, and enough to have 10,000 back within a minute."""

KEEP_S = 60
"""A saga whose next retry or deadline is further off is dropped from memory, and found again by its due time."""

KEEP_CROWDED_S = 2
"""The same when memory is half full: just longer than the scans of due times are apart."""

CALLS_IN_FLIGHT_MAX = 256
"""Calls at a participant at the same time, if its setting does not say: more only makes it slower."""

WATCHERS_MAX = 1_000
"""WatchSaga streams at the same time: each holds a little memory and reads the store."""

SESSIONS_MAX = 1_000
"""Sessions with clients at the same time: a process that starts sagas has one, for all that it starts."""

STARTS_UNDER_WAY_BYTES_MAX = 64 << 20
"""Of starts that are not durable yet, those of all clients together: more than a transaction takes, and memory holds
each a few times, as a request, as an event and as a record."""

OUTCOMES_UNDER_WAY_BYTES_MAX = 64 << 20
"""Of outcomes that are brought by CompleteStep and not answered yet, those of all participants together: each may wait
for a call of its step to end."""

PASSED_ON_BYTES_MAX = 64 << 20
"""Of calls that are passed on to other orchestrators, those of all clients together: each may wait for an owner for as
long as TAKEOVER_S, and holds its request."""

WAITING_MAX = 10_000
"""Calls at the same time that wait for a saga to settle or for a step to be at rest: as many as there may be sagas."""

DRAIN_S = 20.0
"""How long calls in flight may end after SIGTERM, by default: less than the 30 s after which orchestrators kill."""

POSTGRES_SCHEMES = ("postgresql://", "postgres://")

_PASSWORD = re.compile(r"(?<=:)[^/?]*(?=@)|(?<=[?&]password=)[^&]*")
_POSTGRES_URL = re.compile(
    r"\w+://([^/?#]*@)?"
    r"(?P<hosts>[^/?#@]*)"
    r"(/[^/?#@]*)?"
    r"(\?([^&=#]+=[^&#]*)?(&[^&=#]+=[^&#]*)*)?"
)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]*)(:\d+)?")

ENV_PREFIX = "AMENDS_"
ENV_CONFIG = "AMENDS_CONFIG"
CONFIG_FILE = "amends.toml"


class SettingsError(Exception):
    """Settings that cannot be used. The text is for people: it names each setting and how to set it."""


class ParticipantSetting(BaseModel, frozen=True, extra="forbid"):
    """A participant that the settings name. `concurrency_max`: how many calls it takes at a time."""

    address: str
    concurrency_max: int = Field(default=CALLS_IN_FLIGHT_MAX, ge=1)

    @field_validator("address")
    @classmethod
    def _check_address(cls, value: str) -> str:
        return str(parse_address(value))


def _from_address(value: object) -> object:
    return {"address": value} if isinstance(value, str) else value


class Settings(BaseSettings):
    """What can be set. Made by `load_settings`, which puts its errors into sentences."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid")

    listen: str = f"127.0.0.1:{PORT}"
    """Where to serve, as HOST:PORT. Port 0 takes a free one."""

    advertise: str = ""
    """Where other orchestrators on the same database reach this one, as HOST:PORT; where it listens by default."""

    metrics: str = ""
    """Where to serve figures for Prometheus, as HOST:PORT; nowhere by default. Needs `amends[metrics]`."""

    store: str = Field(default_factory=lambda: default_store())
    """Where sagas are kept: `sqlite:///PATH`, four slashes for an absolute path; `postgresql://USER@HOST/DATABASE`; or
    `memory:`, which forgets them."""

    lease_s: float = Field(default=10.0, ge=1, le=600)
    """How long the sagas of an orchestrator that died wait for another one, where several share a database."""

    participants: dict[str, Annotated[ParticipantSetting, BeforeValidator(_from_address)]] = {}
    """Where participants listen, by name: HOST:PORT, or a table with `address` and `concurrency_max`."""

    participant_allow: tuple[str, ...] = ("127.0.0.1:*", "localhost:*", "[::1]:*")
    """Where participants may listen: HOST:PORT, each may be `*`, and a host may begin with `*.`."""

    payload_bytes_max: int = Field(default=PAYLOAD_BYTES_MAX, ge=1, le=256 << 20)
    """The largest payload."""

    drain_s: float = Field(default=DRAIN_S, ge=0, le=3_600)
    """How long calls in flight may end when the server is stopped."""

    reflection: bool = True
    """Whether generic clients can ask for the API."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        return str(parse_address(value, port_min=0))

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, value: str) -> str:
        return value and str(parse_address(value, port_min=0))

    @field_validator("advertise")
    @classmethod
    def _check_advertise(cls, value: str) -> str:
        return value and str(parse_address(value))

    @field_validator("store")
    @classmethod
    def _check_store(cls, value: str) -> str:
        known = value == "memory:" or any(value.startswith(p) and value != p for p in ("sqlite:///", *POSTGRES_SCHEMES))
        if not known:
            raise ValueError(
                f"`{without_password(value)}` is neither sqlite:///PATH (sqlite:////PATH for an absolute one) nor "
                "postgresql://USER@HOST/DATABASE nor memory:"
            )
        if value.startswith(POSTGRES_SCHEMES) and not _is_readable(value):
            raise ValueError(  # without the URL: nobody can tell which part of it is a password
                "the URL cannot be read: it must be postgresql://USER:PASSWORD@HOST:PORT/DATABASE?NAME=VALUE, and in "
                "each of these : / ? # @ & are written %3A %2F %3F %23 %40 %26"
            )
        return value

    @field_validator("participant_allow")
    @classmethod
    def _check_allow(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            parse_pattern(pattern)
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = config_file()
        return (init_settings, env_settings, *([TomlConfigSettingsSource(settings_cls, file)] if file else []))


def load_settings(**given: object) -> Settings:
    """Return the settings; those in `given` that are not None go before all others.

    :raises SettingsError: if some cannot be used.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        settings = Settings(**chosen)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    except ValidationError as error:
        raise SettingsError("\n".join(_sentences(error.errors()))) from None
    except UnreadableSetting as error:
        raise SettingsError(f"The environment cannot be read: {error}. Tables and lists are written as JSON.") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"The file {config_file()} is not valid TOML: mend it. {error}.") from None
    except OSError as error:
        raise SettingsError(
            f"The file {error.filename} cannot be read ({error.strerror}): let this user read it."
        ) from None
    _check_participants(settings)
    return settings


def config_file() -> Path | None:
    """Return the TOML file to read, if there is one.

    :raises SettingsError: if `AMENDS_CONFIG` names one that does not exist.
    """
    named = os.environ.get(ENV_CONFIG)
    if named:
        if not Path(named).is_file():
            raise SettingsError(f"{ENV_CONFIG} names the file {named}, which does not exist: create it, or unset it.")
        return Path(named)
    return Path(CONFIG_FILE) if Path(CONFIG_FILE).is_file() else None


def without_password(url: str) -> str:
    """Return the URL of a store as it may be shown."""
    return _PASSWORD.sub("***", url)


def _is_readable(url: str) -> bool:
    """Tell whether the hosts of a database's URL can be told from its other parts."""
    parts = _POSTGRES_URL.fullmatch(url)
    return parts is not None and all(_HOST.fullmatch(host) for host in parts["hosts"].split(","))


def default_store() -> str:
    """Return the URL of the database in the user's data folder."""
    home = os.environ.get("XDG_DATA_HOME", "")
    folder = Path(home) if os.path.isabs(home) else Path.home() / ".local" / "share"
    return f"sqlite:///{folder / 'amends' / 'amends.db'}"


def _check_participants(settings: Settings) -> None:
    for name, participant in settings.participants.items():
        if not is_allowed(participant.address, settings.participant_allow):
            raise SettingsError(
                f"The setting participants.{name} is `{participant.address}`, which participant_allow does not allow: "
                f"add it there ({_how('participant_allow')})."
            )


def _sentences(problems: Iterable[ErrorDetails]) -> Iterable[str]:
    for problem in problems:
        path = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = ", ".join(Settings.model_fields)
            yield f"There is no setting `{path}`: mend its name or take it out. Settings are {known}."
        else:
            message = problem["msg"].removeprefix("Value error, ")
            yield f"The setting {path} cannot be used: {message}. Set it by {_how(str(problem['loc'][0]))}."


def _how(name: str) -> str:
    option = f"--{name}, " if name in ("listen", "store") else ""
    return f"{option}{ENV_PREFIX}{name.upper()}=… in the environment or `{name} = …` in {CONFIG_FILE}"
