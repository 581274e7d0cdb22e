"""Credentials, URLs and certificates."""

import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from groundglass.apps.pacs.access import (
    Credentials,
    DeniedError,
    check_url,
    load_credentials,
    open_session,
    pacs_errors,
    sends_unencrypted,
)
from groundglass.apps.pacs.dicomweb import DicomWebArchive
from groundglass.apps.pacs.watch import WatchOptions, watch
from groundglass.apps.pacs.watcher import WatchCounts
from groundglass.errors import ConfigError, PacsError
from helpers.fake_watch import fake_worker_factory

NO_CHANGES = {"Changes": [], "Done": True, "Last": 0}


def write_credentials(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "pacs.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def authorization(credentials: Credentials) -> str | None:
    request = requests.Request("GET", "http://pacs", auth=credentials.auth).prepare()
    signed = request.headers.get("Authorization")
    return None if signed is None else str(signed)


def test_credentials_come_from_a_file_or_the_environment_and_are_not_in_the_repr(tmp_path: Path) -> None:
    pair = load_credentials(write_credentials(tmp_path, 'user = "Üser"\npassword = "secret-word"\n'), {})
    assert authorization(pair) == "Basic w5xzZXI6c2VjcmV0LXdvcmQ="
    (tmp_path / "pacs.toml").unlink()
    token = load_credentials(write_credentials(tmp_path, 'token = "secret-word"\n', 0o440), {})
    assert authorization(token) == "Bearer secret-word"
    variables = {"GROUNDGLASS_PACS_USER": "Üser", "GROUNDGLASS_PACS_PASSWORD": "secret-word"}
    assert authorization(load_credentials(None, variables)) == "Basic w5xzZXI6c2VjcmV0LXdvcmQ="
    assert authorization(load_credentials(None, {"GROUNDGLASS_PACS_TOKEN": "secret-word"})) == "Bearer secret-word"
    assert authorization(load_credentials(None, {})) is None
    assert "secret" not in repr(pair) + repr(token)


def test_a_token_that_is_renewed_in_its_file_is_used_from_the_next_request_on(
    serve: Callable[..., str], tmp_path: Path
) -> None:
    file = write_credentials(tmp_path, 'token = "old"')
    credentials = load_credentials(file, {})
    session = open_session(credentials)
    url = serve(lambda *_: (200, []))
    sent = [session.get(url).request.headers["Authorization"]]
    for broken in ("tok", 'token = "open"'):
        file.write_text(broken)
        file.chmod(0o644 if "open" in broken else 0o600)
        with pytest.raises(PacsError, match=r"^pacs\.toml is "):
            DicomWebArchive(url, session).check_connection()
    write_credentials(tmp_path, 'token = "new"')
    sent.append(session.get(url).request.headers["Authorization"])
    assert sent == ["Bearer old", "Bearer new"]


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        ('token = "secret-word"', 0o644, "is readable by every user of this machine: chmod 600"),
        ("secret-word", 0o600, "is not valid TOML"),
        (f"token = {'[' * 10_000}", 0o600, "is not valid TOML"),
        ('user = "secret-word"', 0o600, "are user, expected user and password, or token"),
        ("", 0o600, "are nothing, expected"),
        ('user = "a"\npassword = "secret-word"\ntoken = "b"', 0o600, "are password, token, user, expected"),
        ("token = 7", 0o600, "a value that is not text"),
        ('token = "secret-word\\n"', 0o600, "a value that is not text on one line"),
    ],
)
def test_bad_credentials_are_refused_and_not_quoted(tmp_path: Path, text: str, mode: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_credentials(write_credentials(tmp_path, text, mode), {})
    assert "secret" not in str(caught.value)


def test_a_user_without_a_password_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="from the environment are user, expected"):
        load_credentials(None, {"GROUNDGLASS_PACS_USER": "a"})
    with pytest.raises(ConfigError, match=r"no\.toml cannot be read"):
        load_credentials(tmp_path / "no.toml", {})
    with pytest.raises(ConfigError, match=r"ca\.pem is not a file"):
        open_session(Credentials(), tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("pacs:8042", "is not that of a server"),
        ("ftp://pacs", "is not that of a server"),
        ("http://pacs:port", "is not that of a server"),
        ("http://", "is not that of a server"),
        ("http://user:secret-word@pacs", "holds credentials"),
        ("http://pacs/?since=1", "has a query or a fragment"),
    ],
)
def test_bad_urls_are_refused_and_passwords_in_them_not_quoted(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check_url(url)
    assert "secret" not in str(caught.value)


def test_credentials_are_sent_unencrypted_only_by_http_to_another_machine() -> None:
    assert check_url("https://pacs/orthanc/") == "https://pacs/orthanc"
    pair = Credentials(user="a", password="b")
    assert sends_unencrypted("http://pacs:8042", pair)
    for url in ("https://pacs", "http://127.0.0.1:8042", "http://localhost", "http://[::1]:8042"):
        assert not sends_unencrypted(url, pair)
    assert not sends_unencrypted("http://pacs", Credentials())


def test_proxies_and_certificates_of_the_environment_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    with open_session(Credentials()) as session:
        settings = session.merge_environment_settings("https://pacs", {}, None, None, None)
        assert settings["verify"] is True
        assert not settings["proxies"]


def test_a_dropped_connection_and_an_unknown_host_are_reported_without_the_url() -> None:
    def drop(server: socket.socket) -> None:
        for _ in range(2):  # requests that only read are sent once more
            server.accept()[0].close()

    def ask(url: str) -> None:
        with open_session(Credentials()) as session, pacs_errors("a search"):
            session.get(url, timeout=5)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drop, args=(server,))
        thread.start()
        with pytest.raises(PacsError, match="the connection failed during a search"):
            ask(f"http://127.0.0.1:{server.getsockname()[1]}/")
        thread.join()
    with pytest.raises(PacsError, match="the connection failed during a search") as caught:
        ask("http://no-such-host.invalid/studies/1.2.3")
    assert "1.2.3" not in str(caught.value)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["get", "post", "put", "head"])
def test_no_redirect_is_followed(code: int, method: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, socket.create_server(("127.0.0.1", 0)) as server:
        other.settimeout(0.2)

        def redirect() -> None:
            with server.accept()[0] as connection:
                connection.recv(65536)
                target = f"http://127.0.0.1:{other.getsockname()[1]}/"
                connection.sendall(f"HTTP/1.1 {code} Moved\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode())

        thread = threading.Thread(target=redirect)
        thread.start()
        with open_session(Credentials(user="a", password="b")) as session, pytest.raises(DeniedError) as refused:
            session.request(method, f"http://127.0.0.1:{server.getsockname()[1]}/", data=b"PLANTED^NAME", timeout=5)
        thread.join()
        assert "which is not followed" in str(refused.value)
        with pytest.raises(TimeoutError):
            other.accept()


def test_a_redirected_storage_is_no_storage(serve: Callable[..., str], tmp_path: Path) -> None:
    path = tmp_path / "result.dcm"
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.StudyInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2"
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def redirect() -> None:
            with server.accept()[0] as connection:
                connection.recv(1 << 20)
                connection.sendall(b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=redirect)
        thread.start()
        with open_session(Credentials()) as session, pytest.raises(DeniedError, match="not followed"):
            DicomWebArchive(f"http://127.0.0.1:{server.getsockname()[1]}", session).store("1.2", [path])
        thread.join()


@pytest.mark.thorough
def test_certificates_are_verified(serve: Callable[..., str], tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: no certificate to test with")
    key, certificate, both = (tmp_path / name for name in ("key.pem", "ca.pem", "both.pem"))
    arguments = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    arguments += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(arguments, check=True, capture_output=True)
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    url = serve(lambda path, _: (200, [] if "web" in path else NO_CHANGES), certificate=both)
    factory = fake_worker_factory(tmp_path / "scripts")
    with pytest.raises(PacsError, match=r"certificate is not trusted \(self.signed certificate.* --ca"):
        watch(WatchOptions(url, tmp_path / "watch"), once=True, worker_factory=factory)
    assert (
        watch(WatchOptions(url, tmp_path / "watch", ca=certificate), once=True, worker_factory=factory) == WatchCounts()
    )
    other = url.replace("localhost", "127.0.0.1")
    with pytest.raises(PacsError, match="not trusted"):
        watch(WatchOptions(other, tmp_path / "other", ca=certificate), once=True, worker_factory=factory)


def test_a_server_that_speaks_no_tls_is_not_called_untrusted(serve: Callable[..., str]) -> None:
    url = serve(lambda *_: (200, [])).replace("http:", "https:")
    with pytest.raises(PacsError, match=r"^TLS failed during a search for a study .*: .* http or https$") as raised:
        DicomWebArchive(url, open_session(Credentials())).check_connection()
    assert not isinstance(raised.value, DeniedError)


@pytest.mark.thorough
def test_segment_and_the_command_line_load_no_modules_for_the_network() -> None:
    code = (
        "import sys, groundglass, groundglass.report.analysis, groundglass.cli\n"
        "[getattr(groundglass, name) for name in groundglass.__all__]\n"
        "print(sorted({'dicomweb_client', 'sqlite3', 'groundglass.apps.pacs.access'} & set(sys.modules)))"
    )
    uncovered = {name: value for name, value in os.environ.items() if not name.startswith("COV")}  # it loads sqlite3
    done = subprocess.run([sys.executable, "-c", code], env=uncovered, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
