"""The way to a server: an HTTP session with credentials and TLS, and in plain words what goes wrong on it."""

from __future__ import annotations

import logging
import os
import stat
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth
from urllib3 import Retry

from groundglass.errors import ConfigError, GroundglassError, PacsError
from groundglass.io.dicom_series import DAMAGE, silence_pydicom

TIMEOUT_S = (10.0, 120.0)  # to connect; between two pieces of an answer
_PREFIX = "GROUNDGLASS_PACS_"
_KEYS = ("user", "password", "token")
_LOUD = ("dicomweb_client", "retrying", "urllib3")  # their log lines quote URLs and what servers say
_IN_WORDS = {
    401: "it wants credentials, or other ones",
    403: "these credentials may not do that",
    404: "there is no such thing",
}
_LATER = (408, 429)  # of the codes for a wrong question, those for one that came at a wrong time


class DeniedError(PacsError):
    """The server answers, but not to this: URL, credentials or certificate are wrong, or a thing is gone."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Credentials:
    """A user with a password, or a bearer token; none of them shows in the repr."""

    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    @property
    def auth(self) -> AuthBase | None:
        """What signs each request; None where there is nothing to sign with."""
        if self.token is not None:
            return _Bearer(self.token)
        if self.user is not None and self.password is not None:
            return HTTPBasicAuth(self.user.encode(), self.password.encode())
        return None


class _Bearer(AuthBase):
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def find_credentials(file: Path | None, environment: Mapping[str, str] = os.environ) -> Credentials:
    """Credentials from a TOML file with `user` and `password`, or `token`; without a file from the environment.

    Args:
        file: Readable by its owner, or its group, alone; None: GROUNDGLASS_PACS_USER and GROUNDGLASS_PACS_PASSWORD, or
            GROUNDGLASS_PACS_TOKEN, where they are set.
        environment: Variables and their values.

    Raises:
        ConfigError: The file cannot be read, may be read by all, or there is neither a pair nor a token.
    """
    if file is None:
        where = "the environment"
        given = {key: environment[_PREFIX + key.upper()] for key in _KEYS if environment.get(_PREFIX + key.upper())}
    else:
        where, given = file.name, _read(file)
    if set(given) not in ({"user", "password"}, {"token"}, *([set()] if file is None else [])):
        found = ", ".join(sorted(given)) or "nothing"
        raise ConfigError(f"credentials from {where} are {found}, expected user and password, or token")
    if not all(isinstance(value, str) and value.isprintable() for value in given.values()):
        raise ConfigError(f"credentials from {where} hold something else than text on one line: write it in quotes")
    return Credentials(**given)


def _read(file: Path) -> dict[str, str]:
    try:
        if file.stat().st_mode & stat.S_IRWXO:
            raise ConfigError(f"{file.name} may be read by every user of this machine: chmod 600 {file.name}")
        return dict(tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{file.name} cannot be read: {error.strerror or error}; check the path") from None
    except ValueError:  # its message would quote the file
        raise ConfigError(f'{file.name} is no TOML, expected lines such as user = "…" and password = "…"') from None


def check_url(url: str) -> str:
    """The URL without a slash at its end.

    Raises:
        ConfigError: It is no http or https URL, or holds a password.
    """
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        fits = None
    if not fits:
        raise ConfigError("the URL is none of a server, expected such as http://127.0.0.1:8042")
    if "@" in parts.netloc:
        raise ConfigError(
            "the URL holds credentials, which every user of this machine can see: name them in a file with "
            f"--credentials, or in {_PREFIX}USER and {_PREFIX}PASSWORD"
        )
    if parts.query or parts.fragment:
        raise ConfigError("the URL goes on with ? or #, expected a server's root such as http://127.0.0.1:8042")
    return url.rstrip("/")


def goes_in_clear(url: str, credentials: Credentials) -> bool:
    """Whether the credentials would leave this machine unencrypted."""
    parts = urlsplit(url)
    local = parts.hostname in ("localhost", "::1") or str(parts.hostname).startswith("127.")
    return parts.scheme == "http" and not local and credentials.auth is not None


def open_session(credentials: Credentials, ca: Path | None = None) -> requests.Session:
    """A session that verifies certificates and heeds no environment: no proxy, no .netrc, no other certificates.

    Args:
        credentials: What signs each request.
        ca: A PEM file of the authorities to trust; None: those that come with Python's certifi.

    Raises:
        ConfigError: There is no such file.
    """
    if ca is not None and not ca.is_file():
        raise ConfigError(f"{ca.name} is no file, expected the PEM of a certificate authority: check --ca")
    session = requests.Session()
    session.trust_env = False
    # A server may close an idle connection just when it is used again: what only reads is asked a second time.
    adapter = HTTPAdapter(max_retries=Retry(1, connect=0, read=1, status=0, other=0))
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.auth = credentials.auth
    session.verify = str(ca) if ca else True
    return session


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Make a `PacsError` of whatever goes wrong between here and the server; its text names no patient and no URL.

    Args:
        what: That is asked for, such as `a search for series`.

    Raises:
        DeniedError: The server refuses what is asked, such as by 401 or 404; or its certificate is not trusted.
        PacsError: It cannot be reached, fails, or answers with what is none of DICOMweb.
    """
    try:
        with silence_pydicom(), _silent():
            yield
    except GroundglassError:
        raise
    except requests.exceptions.SSLError as error:
        raise DeniedError(
            f"the server's certificate is not trusted ({_reason(error)}): name its authority's PEM file with --ca"
        ) from None
    except requests.exceptions.HTTPError as error:
        code = error.response.status_code if error.response is not None else 0
        message = f"the server answers {code} to {what}" + (f": {_IN_WORDS[code]}" if code in _IN_WORDS else "")
        if 400 <= code < 500 and code not in _LATER:
            raise DeniedError(message, code) from None
        raise PacsError(message) from None
    except requests.exceptions.Timeout:
        raise PacsError(f"the server gave no answer to {what} within {TIMEOUT_S[1]:g} s") from None
    except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        raise PacsError(f"the connection failed on {what} ({_reason(error)})") from None
    except (requests.exceptions.RequestException, *DAMAGE) as error:
        raise PacsError(
            f"the server answers to {what} with what cannot be understood ({type(error).__name__}), expected Orthanc "
            "or DICOMweb"
        ) from None


@contextmanager
def _silent() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in _LOUD}
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _reason(error: BaseException) -> str:
    """What the operating system or TLS said at the bottom of it."""
    seen: list[BaseException] = []
    below: BaseException | None = error
    while below is not None and below not in seen:
        seen.append(below)
        below = below.__cause__ or below.__context__
    for each in reversed(seen):
        message = getattr(each, "verify_message", None) or getattr(each, "strerror", None)
        if message and not isinstance(each, requests.exceptions.RequestException):
            return str(message)
    return type(seen[-1]).__name__
