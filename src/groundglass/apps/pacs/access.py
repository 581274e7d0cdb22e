"""Access to a server: credentials, an HTTP session with TLS, and errors that name no patient."""

from __future__ import annotations

import logging
import os
import ssl
import stat
import tomllib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase, HTTPBasicAuth
from urllib3 import Retry
from urllib3.exceptions import HTTPError

from groundglass.apps.pacs.answers import AnswerLimitError, TimedAdapter, read_limited, refuse_cut_off
from groundglass.errors import ConfigError, GroundglassError, PacsError
from groundglass.io.dicom_header import DICOM_ERRORS, silence_pydicom

TIMEOUT_S = (10.0, 120.0)  # to connect; to wait for the next part of an answer
_VARIABLE_PREFIX = "GROUNDGLASS_PACS_"
_KEYS = ("user", "password", "token")
_LOGGERS = ("dicomweb_client", "retrying", "urllib3")  # their log lines quote URLs and answers of servers
_STATUS_HINTS = {
    401: "credentials are missing or wrong",
    403: "these credentials do not permit it",
    404: "the resource does not exist",
}
_TEMPORARY = (408, 429)  # 4xx codes that ask to try again later: request timeout, too many requests
_BUSY = (*_TEMPORARY, 503, 507)  # too busy or too full for now, whatever was asked for


class DeniedError(PacsError):
    """The server refuses a request: URL, credentials or certificate are wrong, or the resource does not exist."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class BusyError(PacsError):
    """The server asks to try again later, or has no room: what was asked for is not to blame."""


@dataclass(frozen=True)
class Credentials:
    """A user with a password, or a bearer token; none of them is part of the repr.

    Attributes:
        user: Name of the user.
        password: Password of the user.
        token: Bearer token.
        file: The file that they are from, which is read again for each request: tokens expire, and are renewed in it.
    """

    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    file: Path | None = None

    @property
    def auth(self) -> AuthBase | None:
        """Authentication to add to each request; None without credentials."""
        if self.file is not None:
            return _FromFile(self.file)
        if self.token is not None:
            return _Bearer(self.token)
        if self.user is not None and self.password is not None:
            return HTTPBasicAuth(self.user.encode(), self.password.encode())
        return None


class _Session(requests.Session):
    """A session that sends nothing to another address than the one that it was given, and reads answers under limits.

    An answer that is asked for as a stream is not read here.
    """

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a request, and read its answer."""
        is_streamed = options.pop("stream", self.stream)
        answer = super().send(request, stream=True, **options)
        if is_streamed:
            refuse_cut_off(answer)
        else:
            read_limited(answer)
        return answer

    def get_redirect_target(self, response: requests.Response) -> str | None:
        """Refuse to follow a redirect: with it would go the images and names of patients.

        Raises:
            DeniedError: The server redirects the request.
        """
        if 300 <= response.status_code < 400 and "location" in response.headers:
            response.close()
            raise DeniedError(
                f"the server redirects to another address ({response.status_code}), which is not followed: give the "
                "address itself"
            )
        return None


class _Bearer(AuthBase):
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class _FromFile(AuthBase):
    def __init__(self, file: Path) -> None:
        self._file = file

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        try:
            auth = replace(load_credentials(self._file), file=None).auth
        except ConfigError as error:  # it may be written just now
            raise PacsError(str(error)) from None
        return request if auth is None else auth(request)


def load_credentials(file: Path | None, environment: Mapping[str, str] = os.environ) -> Credentials:
    """Load credentials from a TOML file with `user` and `password`, or `token`; without a file from the environment.

    Args:
        file: Must not be readable by users outside its owner and group. None to take GROUNDGLASS_PACS_USER and
            GROUNDGLASS_PACS_PASSWORD, or GROUNDGLASS_PACS_TOKEN, if they are set.
        environment: {variable: value}.

    Raises:
        ConfigError: The file cannot be read or is readable by all users, or it holds neither a pair nor a token.
    """
    if file is None:
        origin = "the environment"
        given = {
            key: environment[_VARIABLE_PREFIX + key.upper()]
            for key in _KEYS
            if environment.get(_VARIABLE_PREFIX + key.upper())
        }
    else:
        origin, given = file.name, _read(file)
    if set(given) not in ({"user", "password"}, {"token"}, *([set()] if file is None else [])):
        found = ", ".join(sorted(given)) or "nothing"
        raise ConfigError(f"credentials from {origin} are {found}, expected user and password, or token")
    if not all(isinstance(value, str) and value.isprintable() for value in given.values()):
        raise ConfigError(f"credentials from {origin} hold a value that is not text on one line: write it in quotes")
    return Credentials(**given, file=file)


def _read(file: Path) -> dict[str, str]:
    try:
        if file.stat().st_mode & stat.S_IRWXO:
            raise ConfigError(f"{file.name} is readable by every user of this machine: chmod 600 {file.name}")
        return dict(tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{file.name} cannot be read: {error.strerror or error}; check the path") from None
    except (ValueError, RecursionError):  # its message would quote the file
        raise ConfigError(
            f'{file.name} is not valid TOML, expected lines such as user = "…" and password = "…"'
        ) from None


def check_url(url: str) -> str:
    """Return the URL without a slash at its end.

    Raises:
        ConfigError: It is not an http or https URL, or holds a password, a query or a fragment.
    """
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of `parts.port` too
        is_valid = False
    if not is_valid:
        raise ConfigError("the URL is not that of a server, expected for example http://127.0.0.1:8042")
    if "@" in parts.netloc:
        raise ConfigError(
            "the URL holds credentials, which every user of this machine can see: put them into a file for "
            f"--credentials, or into {_VARIABLE_PREFIX}USER and {_VARIABLE_PREFIX}PASSWORD"
        )
    if parts.query or parts.fragment:
        raise ConfigError(
            "the URL has a query or a fragment (? or #), expected the root of a server such as http://127.0.0.1:8042"
        )
    return url.rstrip("/")


def sends_unencrypted(url: str, credentials: Credentials) -> bool:
    """Return whether the credentials would leave this machine unencrypted."""
    parts = urlsplit(url)
    is_local = parts.hostname in ("localhost", "::1") or str(parts.hostname).startswith("127.")
    return parts.scheme == "http" and not is_local and credentials.auth is not None


def open_session(credentials: Credentials, ca: Path | None = None) -> requests.Session:
    """Open a session that verifies certificates, follows no redirect, and ignores the environment.

    It uses neither proxies nor .netrc nor certificates that the environment names.

    Args:
        credentials: Credentials for each request.
        ca: PEM file of the certificate authorities to trust; None for those of certifi.

    Raises:
        ConfigError: The PEM file does not exist.
    """
    if ca is not None and not ca.is_file():
        raise ConfigError(f"{ca.name} is not a file, expected the PEM of a certificate authority: check --ca")
    session = _Session()
    session.trust_env = False
    # A server may close an idle connection just when it is used again: requests that only read are sent once more.
    adapter = TimedAdapter(max_retries=Retry(1, connect=0, read=1, status=0, other=0))
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    session.auth = credentials.auth
    session.verify = str(ca) if ca else True
    return session


@contextmanager
def pacs_errors(request: str) -> Iterator[None]:
    """Turn every error of a request inside `with` into a `PacsError`, whose message names no patient and no URL.

    Args:
        request: Description of the request for the message, such as `a search for series`.

    Raises:
        DeniedError: The server refuses the request, for example with 401 or 404; or its certificate is not trusted.
        BusyError: The server asks to try again later.
        PacsError: The server cannot be reached, fails, or gives an answer that is not understood.
    """
    try:
        with silence_pydicom(), _silence_libraries():
            yield
    except GroundglassError:
        raise
    except requests.exceptions.SSLError as error:
        if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)):
            raise DeniedError(
                f"the server's certificate is not trusted ({_reason(error)}): name its authority's PEM file with --ca"
            ) from None
        raise PacsError(
            f"TLS failed during {request} ({_reason(error)}): if that lasts, check whether the URL must begin with "
            "http or https"
        ) from None
    except requests.exceptions.HTTPError as error:
        code = error.response.status_code if error.response is not None else 0
        hint = f": {_STATUS_HINTS[code]}" if code in _STATUS_HINTS else ""
        message = f"the server answers {code} to {request}{hint}"
        if 400 <= code < 500 and code not in _TEMPORARY:
            raise DeniedError(message, code) from None
        raise (BusyError if code in _BUSY else PacsError)(message) from None
    except requests.exceptions.Timeout:
        raise PacsError(f"the server gave no answer to {request} within {TIMEOUT_S[1]:g} s") from None
    except AnswerLimitError as error:
        raise PacsError(
            f"the server's answer to {request} {error}, the limit of groundglass: see the log of the server; with "
            "--dicomweb, --since keeps searches short"
        ) from None
    except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError, HTTPError) as error:
        raise PacsError(f"the connection failed during {request} ({_reason(error)})") from None
    except (requests.exceptions.RequestException, *DICOM_ERRORS) as error:
        raise PacsError(
            f"the server's answer to {request} is not understood ({type(error).__name__}), expected one of Orthanc or "
            "of a DICOMweb server: check the URL"
        ) from None


@contextmanager
def _silence_libraries() -> Iterator[None]:
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _reason(error: BaseException) -> str:
    """Return the message of TLS or of the operating system that caused an error; else the type of its first cause."""
    chain = _causes(error)
    for cause in reversed(chain):
        message = getattr(cause, "verify_message", None) or getattr(cause, "strerror", None)
        if message and not isinstance(cause, requests.exceptions.RequestException):
            return str(message)
    return type(chain[-1]).__name__


def _causes(error: BaseException) -> list[BaseException]:
    """Return an error and what caused it, the first cause last."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    return chain
