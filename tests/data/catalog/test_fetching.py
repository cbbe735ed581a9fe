import hashlib
import os
import urllib.error
from urllib.request import ProxyHandler, build_opener

import pytest

from convlora.data.catalog import fetching
from convlora.data.catalog.fetching import Record, download, https_only
from convlora.errors import DataError, OutputError
from tests.data.catalog.server import serving

CONTENT = os.urandom(300_000)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(fetching, "PAUSE", 0.001)
    monkeypatch.setattr(fetching, "TIMEOUT", 5.0)


@pytest.fixture
def site():
    with serving(CONTENT) as (site, url):
        site.url = url
        yield site


def fetch(site, folder, progress=lambda done, total: None):
    download(site.url, folder / "a.zip", opener=build_opener(ProxyHandler({})), progress=progress)


def names(folder):
    return [path.name for path in folder.iterdir()]


def test_a_file_arrives_whole_and_its_bytes_are_counted(site, tmp_path):
    seen = []
    fetch(site, tmp_path, lambda done, total: seen.append((done, total)))
    assert (tmp_path / "a.zip").read_bytes() == CONTENT and names(tmp_path) == ["a.zip"]
    assert seen[0] == (0, len(CONTENT)) and seen[-1] == (len(CONTENT), len(CONTENT)) and seen == sorted(seen)


def test_a_connection_that_breaks_is_taken_up_where_it_broke(site, tmp_path):
    site.breaks_after = [100_000, 50_000]
    fetch(site, tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=100000-", "bytes=150000-"]


@pytest.mark.parametrize("why", ["changed", "no ranges"])
def test_a_file_that_cannot_be_taken_up_is_fetched_anew(site, tmp_path, why):
    site.breaks_after = [100_000]
    site.resumes = why == "changed"

    def change(done, total):
        if why == "changed" and done == 100_000:
            site.content, site.tag = CONTENT[::-1], '"2"'

    fetch(site, tmp_path, change)
    assert (tmp_path / "a.zip").read_bytes() == site.content and len(site.ranges) == 2


def test_a_connection_that_breaks_again_and_again_leaves_nothing(site, tmp_path):
    site.breaks_after = [1000] * 99
    with pytest.raises(DataError, match=rf"{site.url} cannot be fetched: .*give it as --archive FILE"):
        fetch(site, tmp_path)
    assert names(tmp_path) == [] and len(site.ranges) == fetching.ATTEMPTS


@pytest.mark.parametrize("status", [403, 404, 503])
def test_a_refusal_is_told_at_once(site, tmp_path, status):
    site.status = status
    with pytest.raises(DataError, match=f"cannot be fetched: the server answers {status}"):
        fetch(site, tmp_path)
    assert names(tmp_path) == [] and len(site.ranges) == 1


def test_a_server_that_is_not_there_is_told_at_once(tmp_path):
    with serving(b"") as (_, url):
        pass
    with pytest.raises(DataError, match="cannot be fetched: Connection refused"):
        download(url, tmp_path / "a.zip", opener=build_opener(ProxyHandler({})), progress=lambda done, total: None)
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_download_leaves_nothing(site, tmp_path, error):
    def stop(done, total):
        if done:
            raise error

    with pytest.raises(OutputError if isinstance(error, OSError) else error):
        fetch(site, tmp_path, stop)
    assert names(tmp_path) == []


def test_a_file_beyond_all_measure_is_refused_before_it_fills_the_disk(site, tmp_path, monkeypatch):
    monkeypatch.setattr(fetching, "MOST_BYTES", 200_000)
    with pytest.raises(DataError, match="is not the archive expected"):
        fetch(site, tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("scheme", ["http", "ftp", "file"])
def test_only_https_is_opened(scheme, tmp_path):
    (tmp_path / "x").write_text("secret")
    with pytest.raises(urllib.error.URLError, match=f"{scheme} is not encrypted; only https"):
        https_only().open(f"{scheme}://127.0.0.1{tmp_path}/x")


def test_a_redirection_from_https_to_http_is_not_followed():
    opener = https_only()
    redirect = next(handler for handler in opener.handlers if hasattr(handler, "redirect_request"))
    request = fetching.Request("https://127.0.0.1/x")
    new = redirect.redirect_request(request, None, 302, "Found", {}, "http://127.0.0.1/x")
    with pytest.raises(urllib.error.URLError, match="only https"):
        opener.open(new)


def test_a_record_says_size_and_hash_and_comes_back(tmp_path):
    (tmp_path / "a.zip").write_bytes(CONTENT)
    record = Record.of(tmp_path / "a.zip", "https://example.org/a.zip")
    assert (record.bytes, record.sha256) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    record.write(tmp_path / "record.json")
    assert Record.read(tmp_path / "record.json") == record and Record.read(tmp_path / "none.json") is None
    (tmp_path / "record.json").write_text("{}")
    with pytest.raises(DataError, match=r"record.json is not readable"):
        Record.read(tmp_path / "record.json")
