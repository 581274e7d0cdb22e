"""Credentials, URLs, certificates."""

import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from groundglass.apps.pacs.access import Credentials, asking, check_url, find_credentials, goes_in_clear, open_session
from groundglass.apps.pacs.watch import WatchOptions, watch
from groundglass.apps.pacs.watcher import WatchCounts
from groundglass.errors import ConfigError, PacsError
from helpers.fake_watch import obedient

NO_CHANGES = {"Changes": [], "Done": True, "Last": 0}


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "pacs.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def header(credentials: Credentials) -> str | None:
    request = requests.Request("GET", "http://pacs", auth=credentials.auth).prepare()
    signed = request.headers.get("Authorization")
    return None if signed is None else str(signed)


def test_credentials_come_from_a_file_or_the_environment_and_never_show(tmp_path: Path) -> None:
    pair = find_credentials(written(tmp_path, 'user = "Üser"\npassword = "secret-word"\n'), {})
    token = find_credentials(written(tmp_path, 'token = "secret-word"\n', 0o440), {})
    assert header(pair) == "Basic w5xzZXI6c2VjcmV0LXdvcmQ="
    assert header(token) == "Bearer secret-word"
    variables = {"GROUNDGLASS_PACS_USER": "Üser", "GROUNDGLASS_PACS_PASSWORD": "secret-word"}
    assert find_credentials(None, variables) == pair
    assert find_credentials(None, {"GROUNDGLASS_PACS_TOKEN": "secret-word"}) == token
    assert header(find_credentials(None, {})) is None
    assert "secret" not in repr(pair) + repr(token)


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        ('token = "secret-word"', 0o644, "may be read by every user of this machine: chmod 600"),
        ("secret-word", 0o600, "is no TOML"),
        ('user = "secret-word"', 0o600, "are user, expected user and password, or token"),
        ("", 0o600, "are nothing, expected"),
        ('user = "a"\npassword = "secret-word"\ntoken = "b"', 0o600, "are password, token, user, expected"),
        ("token = 7", 0o600, "something else than text"),
        ('token = "secret-word\\n"', 0o600, "something else than text on one line"),
    ],
)
def test_bad_credentials_are_refused_and_not_repeated(tmp_path: Path, text: str, mode: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        find_credentials(written(tmp_path, text, mode), {})
    assert "secret" not in str(caught.value)


def test_half_a_pair_or_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="from the environment are user, expected"):
        find_credentials(None, {"GROUNDGLASS_PACS_USER": "a"})
    with pytest.raises(ConfigError, match=r"no\.toml cannot be read"):
        find_credentials(tmp_path / "no.toml", {})
    with pytest.raises(ConfigError, match=r"ca\.pem is no file"):
        open_session(Credentials(), tmp_path / "ca.pem")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("pacs:8042", "is none of a server"),
        ("ftp://pacs", "is none of a server"),
        ("http://pacs:port", "is none of a server"),
        ("http://", "is none of a server"),
        ("http://user:secret-word@pacs", "holds credentials"),
        ("http://pacs/?since=1", "goes on with"),
    ],
)
def test_bad_urls(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check_url(url)
    assert "secret" not in str(caught.value)


def test_good_urls_and_which_are_in_clear() -> None:
    assert check_url("https://pacs/orthanc/") == "https://pacs/orthanc"
    pair = Credentials(user="a", password="b")
    assert goes_in_clear("http://pacs:8042", pair)
    for url in ("https://pacs", "http://127.0.0.1:8042", "http://localhost", "http://[::1]:8042"):
        assert not goes_in_clear(url, pair)
    assert not goes_in_clear("http://pacs", Credentials())


def test_the_environment_cannot_change_where_requests_go(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
    with open_session(Credentials()) as session:
        settings = session.merge_environment_settings("https://pacs", {}, None, None, None)
        assert settings["verify"] is True
        assert not settings["proxies"]


def test_a_connection_that_is_dropped_and_a_name_that_is_unknown_are_told() -> None:
    def drop(server: socket.socket) -> None:
        for _ in range(2):  # what only reads is asked a second time
            server.accept()[0].close()

    def ask(url: str) -> None:
        with open_session(Credentials()) as session, asking("it"):
            session.get(url, timeout=5)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=drop, args=(server,))
        thread.start()
        with pytest.raises(PacsError, match="the connection failed on it"):
            ask(f"http://127.0.0.1:{server.getsockname()[1]}/")
        thread.join()
    with pytest.raises(PacsError, match="the connection failed on it") as caught:
        ask("http://no-such-host.invalid/studies/1.2.3")
    assert "1.2.3" not in str(caught.value)


def test_certificates_are_verified(serve: Callable[..., str], tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: no certificate to test with")
    key, certificate, both = (tmp_path / name for name in ("key.pem", "ca.pem", "both.pem"))
    words = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(words, check=True, capture_output=True)
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    url = serve(lambda path, _: (200, [] if "web" in path else NO_CHANGES), certificate=both)
    opener = obedient(tmp_path / "orders")
    with pytest.raises(PacsError, match=r"certificate is not trusted \(self.signed certificate.* --ca"):
        watch(WatchOptions(url, tmp_path / "watch"), once=True, opener=opener)
    assert watch(WatchOptions(url, tmp_path / "watch", ca=certificate), once=True, opener=opener) == WatchCounts()
    other = url.replace("localhost", "127.0.0.1")
    with pytest.raises(PacsError, match="not trusted"):
        watch(WatchOptions(other, tmp_path / "other", ca=certificate), once=True, opener=opener)


def test_segment_loads_nothing_of_the_network() -> None:
    code = (
        "import sys, groundglass, groundglass.report.analysis, groundglass.cli\n"
        "[getattr(groundglass, name) for name in groundglass.__all__]\n"
        "print(sorted({'dicomweb_client', 'sqlite3', 'groundglass.apps.pacs.access'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
