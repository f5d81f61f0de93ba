"""Files arrive whole and right from a server that misbehaves, or not at all."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.download.disk import require_space
from pipeline_steps.data.download.sources import mirrored, read_sources
from pipeline_steps.data.download.transfer import Expected, Patience, fetch, part_of

ROOT = Path(__file__).parents[2]
PATIENCE = Patience(retries=3, first_wait=0.01, longest_wait=0.02, timeout=5)
CONTENT = random.Random(0).randbytes(3_000_000)
EXPECTED = Expected(len(CONTENT), hashlib.md5(CONTENT).hexdigest(), hashlib.sha256(CONTENT).hexdigest()[:8])


@pytest.fixture
def target(server, tmp_path):
    (server.root / "a.zip").write_bytes(CONTENT)
    return tmp_path / "data" / "a.zip"


def get(server, target, expected=EXPECTED):
    fetch(f"{server.url}/a.zip", target, expected, PATIENCE)


def only_file(target):
    return [path.name for path in target.parent.iterdir()] == [target.name]


def test_file_arrives_with_its_checksum_and_nothing_beside_it(server, target):
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert only_file(target)


def test_right_file_on_disk_is_not_fetched_again(server, target):
    get(server, target)
    get(server, target)
    assert len(server.requests) == 1


def test_broken_connections_are_resumed_where_they_broke(server, target):
    server.faults["a.zip"] = ["cut", "cut", 503]
    get(server, target)
    assert target.read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert [asked for _, asked in server.requests] == [
        None,
        f"bytes={half}-",
        f"bytes={half + half // 2}-",
        f"bytes={half + half // 2}-",
    ]


def test_progress_restarts_the_count_of_retries(server, target):
    server.faults["a.zip"] = ["cut"] * 8
    get(server, target)
    assert target.read_bytes() == CONTENT


def test_giving_up_keeps_what_has_come_and_the_next_run_goes_on(server, target):
    server.faults["a.zip"] = ["cut", 500, 500, 500, 500]
    with pytest.raises(UserError, match="gave up after 4 attempts"):
        get(server, target)
    assert not target.exists()
    assert part_of(target).stat().st_size == len(CONTENT) // 2
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert only_file(target)


@pytest.mark.parametrize("fault", ["no-ranges", "wrong-range"])
def test_server_without_working_ranges_is_asked_from_the_beginning(server, target, fault):
    server.faults["a.zip"] = ["cut", fault]
    get(server, target)
    assert target.read_bytes() == CONTENT


def test_two_versions_of_a_file_are_never_joined(server, target):
    server.faults["a.zip"] = ["cut", 500, 500, 500, 500]
    with pytest.raises(UserError):
        get(server, target)
    other = CONTENT[::-1]
    (server.root / "a.zip").write_bytes(other)
    server.version = "v2"
    get(server, target, Expected(len(other), hashlib.md5(other).hexdigest()))
    assert target.read_bytes() == other


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_refusals_are_not_repeated_and_name_address_and_remedy(server, target, status):
    server.faults["a.zip"] = [status]
    with pytest.raises(UserError, match=rf"a\.zip answered with status {status}.*mirror"):
        get(server, target)
    assert len(server.requests) == 1
    assert list(target.parent.iterdir()) == []


def test_web_page_is_not_saved_as_a_zip(server, target):
    server.faults["a.zip"] = ["html"]
    with pytest.raises(UserError, match=r"web page .* instead of a\.zip"):
        get(server, target)
    assert not target.exists()


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        (Expected(len(CONTENT) + 1), "has 3000000 bytes instead of 3000001"),
        (Expected(md5="0" * 32), "has MD5"),
        (Expected(sha256_prefix="ffffffff"), "has SHA-256"),
    ],
)
def test_wrong_size_or_checksum_is_refused_and_removed(server, target, expected, words):
    with pytest.raises(UserError, match=words):
        get(server, target, expected)
    assert list(target.parent.iterdir()) == []


def test_damaged_beginning_of_a_resumed_file_is_fetched_anew_once(server, target):
    server.faults["a.zip"] = ["cut", 500, 500, 500, 500]
    with pytest.raises(UserError):
        get(server, target)
    part = part_of(target)
    part.write_bytes(b"\0" * part.stat().st_size)
    get(server, target)
    assert target.read_bytes() == CONTENT


def test_part_longer_than_the_file_is_started_again(server, target):
    server.faults["a.zip"] = ["cut", 500, 500, 500, 500]
    with pytest.raises(UserError):
        get(server, target)
    part_of(target).write_bytes(b"\0" * (len(CONTENT) + 5))
    get(server, target)
    assert target.read_bytes() == CONTENT


def test_server_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9.*no answer"):
        fetch("http://127.0.0.1:9/a.zip", tmp_path / "a.zip", Expected(), PATIENCE)


def test_local_folder_serves_as_mirror(server, target):
    url = mirrored("https://example.org/data/a.zip", {"https://example.org/data": str(server.root)})
    fetch(url, target, EXPECTED, PATIENCE)
    assert target.read_bytes() == CONTENT
    with pytest.raises(UserError, match="mirror file not found"):
        fetch(f"file://{server.root}/b.zip", target.with_name("b.zip"), Expected(), PATIENCE)


@pytest.mark.parametrize(
    ("content", "words"),
    [(CONTENT[:-1], "has 2999999 bytes instead of 3000000"), (CONTENT[::-1], "has MD5 .* instead of")],
)
def test_another_file_of_that_name_is_never_replaced(server, target, content, words):
    target.parent.mkdir()
    target.write_bytes(content)
    with pytest.raises(UserError, match=rf"{target} {words}.*delete it and start again"):
        get(server, target)
    assert target.read_bytes() == content
    assert server.requests == []


def test_too_small_disk_is_said_before_the_download(tmp_path):
    with pytest.raises(UserError, match=r"needs 1000000000\.00 GB, but only"):
        require_space(tmp_path / "not" / "yet", 10**18, "train2017.zip")


def test_longest_matching_mirror_wins():
    mirrors = {"https://a.org": "https://b.org", "https://a.org/big/": "/disk"}
    assert mirrored("https://a.org/x", mirrors) == "https://b.org/x"
    assert mirrored("https://a.org/big/x", mirrors) == "/disk/x"
    assert mirrored("https://c.org/x", mirrors) == "https://c.org/x"


def test_table_of_sources_is_complete_and_names_bad_lines(tmp_path):
    sources = read_sources(ROOT / "config/sources.csv")
    assert {source.group for source in sources} == {
        "lvis",
        "coco_annotations",
        "coco_images",
        "openimages_tables",
        "openimages_images",
        "weights",
    }
    assert sum(source.images or 0 for source in sources) == 118287 + 5000 + 40670
    assert all(source.licence and source.purpose for source in sources)
    text = (ROOT / "config/sources.csv").read_text()
    (tmp_path / "s.csv").write_text(text.replace("252907541", "many"))
    with pytest.raises(UserError, match=r"s\.csv, line 8: bytes is 'many'"):
        read_sources(tmp_path / "s.csv")
    (tmp_path / "s.csv").write_text("group,file\n")
    with pytest.raises(UserError, match="columns missing"):
        read_sources(tmp_path / "s.csv")
