"""Settings of services, from the environment."""

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.common.addresses import is_host_and_port, is_loopback
from services.common.errors import StartError
from services.common.home import Home, absolute
from services.common.rpc.sockets import is_socket, socket_path


def _public_address(value: str) -> str:
    if not is_host_and_port(value):
        raise ValueError("must be host:port, such as 127.0.0.1:7460")
    return value


def _node_address(value: str) -> str:
    if is_socket(value):
        socket_path(value)
    elif not is_loopback(_public_address(value).rpartition(":")[0]):
        raise ValueError("must be unix:PATH, or a loopback address: only this machine has business there")
    return value


NodeAddress = Annotated[str, AfterValidator(_node_address)]
"""The address of a service for this cell alone: unix:PATH, or a port of loopback, with the cell's own certificate."""
PublicAddress = Annotated[str, AfterValidator(_public_address)]
"""The address of a service that other machines may reach; the service itself requires TLS there."""


class ServiceSettings(BaseSettings):
    """The settings of every service. A service's own class adds its prefix and its own settings.

    class ExampleSettings(ServiceSettings, env_prefix="BOATYARD_EXAMPLE_"):
        max_examples: int = 4
    """

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    data_directory: Annotated[Path, AfterValidator(absolute)] = Field(
        default=Path("~/.local/share/boatyard"),
        validate_default=True,
        validation_alias="BOATYARD_HOME",
    )
    listen: NodeAddress | None = None
    """Where it listens; by default at its socket in the data directory."""
    reflection: bool = True
    """Whether the server answers reflection, so that tools need no .proto files."""

    @property
    def home(self) -> Home:
        """The data directory's layout."""
        return Home(self.data_directory)


_Settings = TypeVar("_Settings", bound=BaseSettings)


def load_settings(kind: type[_Settings]) -> _Settings:
    """Read settings of this kind from the environment. Raises StartError naming every wrong variable."""
    try:
        return kind()
    except ValidationError as error:
        prefix = kind.model_config.get("env_prefix", "")
        lines = [
            ": ".join(
                [*([_variable(item["loc"], prefix)] if item["loc"] else []), item["msg"].removeprefix("Value error, ")]
            )
            for item in error.errors()
        ]
        raise StartError("wrong settings:\n  " + "\n  ".join(lines)) from None


def _variable(location: tuple[int | str, ...], prefix: str) -> str:
    name = "_".join(part for part in location if isinstance(part, str))  # numbers are places in a list
    return name if name.isupper() else (prefix + name).upper()
