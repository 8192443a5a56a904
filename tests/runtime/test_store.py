"""Objects of server processes that speak S3's and Google's protocols."""

import pytest

from r2rec_jax.runtime import store
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.store import ABSENT, Store, StoreError
from tests.stand_in import BUCKET, gcs


def test_objects_are_written_listed_read_and_deleted(url):
    here, beside = Store(url), Store(f"{url}-2")
    assert here.names() == [] and here.get("a").data is None
    for name, data in {"b/c.bin": bytes(range(256)) * 999, "a": b"1", "empty": b"", ".lease": b"me"}.items():
        here.put(name, data)
    beside.put("other", b"")
    assert here.names() == ["a", "b/c.bin", "empty"]
    assert here.get("b/c.bin").data == bytes(range(256)) * 999
    assert here.get("empty").data == b"" and here.get(".lease").data == b"me"
    here.put("a", b"2")
    here.delete("b/c.bin")
    here.delete("never there")
    assert here.get("a").data == b"2" and here.names() == ["a", "empty"]


def test_and_on_googles(monkeypatch):
    """The stand-in takes no empty object and lists a bucket whole: one folder is all that is in it."""
    with gcs() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        objects = Store(f"gs://{BUCKET}/folder")
        assert objects.names() == [] and objects.get("a").data is None
        for name, data in {"b/c.bin": bytes(range(256)) * 999, "a": b"1", ".lease": b"me"}.items():
            objects.put(name, data)
        assert objects.names() == ["a", "b/c.bin"]
        assert objects.get("b/c.bin").data == bytes(range(256)) * 999
        objects.put("a", b"2")
        objects.delete("b/c.bin")
        assert objects.get("a").data == b"2" and objects.names() == ["a"]


def test_what_has_not_changed_is_not_sent(url):
    objects = Store(url)
    generation = objects.put("a", b"1")
    assert objects.get("a").generation == generation
    assert objects.get("a", unless=generation).data is None
    objects.put("a", b"2")
    assert objects.get("a", unless=generation).data == b"2"


def test_one_of_two_writers_gets_what_is_free(url):
    objects = Store(url)
    first = objects.put("lock", b"mine", instead_of=ABSENT)
    assert first and objects.put("lock", b"yours", instead_of=ABSENT) is None
    second = objects.put("lock", b"still mine", instead_of=first)
    assert second and objects.put("lock", b"yours", instead_of=first) is None
    assert objects.get("lock").data == b"still mine"


@pytest.mark.parametrize("name", ["a//b", "a\\b", "a\x1bb", "/a"])
def test_a_name_that_would_leave_the_folder_is_refused(server, url, name):
    server.put(f"{url.removeprefix(f's3://{BUCKET}/')}/{name}", b"")
    with pytest.raises(UserError, match="which is no file's name"):
        Store(url).names()


def test_what_browsers_leave_for_folders_is_no_file(server, url):
    server.put(f"{url.removeprefix(f's3://{BUCKET}/')}/sub/", b"")
    assert Store(url).names() == []


@pytest.mark.parametrize("bad", ["s3://bucket", "gs://bucket/", "s3:///a"])
def test_a_url_must_name_a_folder(bad):
    with pytest.raises(UserError, match=r"write gs://BUCKET/NAME or s3://BUCKET/NAME"):
        Store(bad)


@pytest.mark.usefixtures("server")
def test_a_bucket_that_is_not_there_is_told_in_one_line():
    said = r"^s3://nowhere/a cannot be reached \([^\n]*bucket does not exist[^\n]*\): look at [^\n]*$"
    with pytest.raises(StoreError, match=said):
        Store("s3://nowhere/a").names()


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_server_that_is_not_there_is_told_in_one_line(monkeypatch, scheme):
    monkeypatch.setattr(store, "RETRIES", {"max_retries": 1, "initial_delay": "10ms", "max_delay": "10ms"})
    nobody = {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "TENSORSTORE_GCS_HTTP_URL": "http://127.0.0.1:1"}
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "GOOGLE_AUTH_TOKEN_FOR_TESTING": "c"}
    for name, value in (nobody | keys).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        StoreError, match=rf"^{scheme}://bucket/a cannot be reached \([^\n]*\): look at [^\n]*$"
    ):
        Store(f"{scheme}://bucket/a").names()
