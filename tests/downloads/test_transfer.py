"""Files arrive whole and right from a server that misbehaves, or not at all."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from pipeline_steps.common.errors import UserError
from pipeline_steps.data.sources.source import mirrored, read_sources
from pipeline_steps.data.sources.space import part_of
from pipeline_steps.downloads import transfer
from pipeline_steps.downloads.disk import require_space
from pipeline_steps.downloads.transfer import Expected, Patience, fetch

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


def rounds(server) -> float:
    """How often the whole file has been sent."""
    return server.sent / len(CONTENT)


def test_length_that_is_never_reached_ends_after_few_rounds(server, target):
    """The rest is refused (416), so that every round throws away what the one before has brought."""
    server.faults["a.zip"] = ["long-always"]
    with pytest.raises(UserError, match=r"a\.zip: gave up after 4 attempts without progress: the range was refused"):
        get(server, target, Expected())
    assert rounds(server) <= 4
    assert len(server.requests) <= 5


def test_large_files_are_not_fetched_in_vain_more_than_once(server, target, monkeypatch):
    monkeypatch.setattr(transfer, "_CHEAP_TO_REPEAT", 0)
    server.faults["a.zip"] = ["long-always"]
    with pytest.raises(UserError, match=r"gave up after \d+ useless bytes: .*the server contradicts itself"):
        fetch(f"{server.url}/a.zip", target, Expected(), Patience(retries=50, first_wait=0.001, longest_wait=0.001))
    assert rounds(server) <= 2


def test_ranges_that_never_fit_end_after_few_rounds(server, target):
    """Every second connection breaks, and the next one throws the half away: the same bytes again are no progress."""
    server.faults["a.zip"] = ["cut", "wrong-range"] * 20
    with pytest.raises(UserError, match="gave up after 4 attempts without progress"):
        get(server, target)
    assert rounds(server) <= 4


@pytest.mark.parametrize("fault", ["long", "short"])
def test_announced_length_other_than_the_known_one_is_refused_before_the_file_comes(server, target, fault):
    server.faults["a.zip"] = [f"{fault}-always"]
    with pytest.raises(UserError, match=r"a\.zip: the file has \d+ bytes instead of 3000000"):
        get(server, target)
    assert len(server.requests) == 1
    assert list(target.parent.iterdir()) == []


def test_range_of_another_file_is_refused(server, target):
    server.faults["a.zip"] = ["cut", "wrong-total"]
    with pytest.raises(UserError, match="has 3000010 bytes instead of 3000000"):
        get(server, target)
    assert len(server.requests) == 2


def test_whole_part_is_not_asked_for_more(server, target):
    """The transfer was killed between its last byte and the new name."""
    target.parent.mkdir()
    part_of(target).write_bytes(CONTENT)
    get(server, target)
    assert target.read_bytes() == CONTENT
    assert server.requests == []


@pytest.mark.parametrize("expected", [EXPECTED, Expected(most=4_000_000)])
def test_answer_without_end_is_cut_off(server, target, expected):
    server.faults["a.zip"] = ["endless"]
    get(server, target, expected)
    assert target.read_bytes() == CONTENT
    assert server.sent < 10 * len(CONTENT)  # what the sockets hold included


@pytest.mark.parametrize("size", [2_999_000, 3_000_100])
def test_size_that_is_not_plausible_is_refused_before_the_file_comes(server, target, size):
    bounds = {"least": 3_000_001} if size > len(CONTENT) else {"most": size}
    with pytest.raises(UserError, match=r"has 3000000 bytes, (more than the 2999000|fewer than the 3000001)"):
        get(server, target, Expected(**bounds))
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("text", ["86400", "9" * 400, "Fri, 31 Dec 2100 23:59:59 GMT", "\xb2", "-1"])
def test_server_cannot_ask_for_a_longer_wait_than_ours(server, target, text):
    server.faults["a.zip"] = [("wait", text)]
    waits = []
    fetch(f"{server.url}/a.zip", target, EXPECTED, PATIENCE, warn=waits.append)
    assert [line.split("trying again in ")[1] for line in waits] == ["0.0 s"]
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
    with pytest.raises(UserError, match="missing columns: lvis_version, url"):
        read_sources(tmp_path / "s.csv")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("lvis,v0.5,", "lvis,v05,", "line 2: lvis_version is 'v05'; expected nothing, v0.5, v1; did you mean 'v0.5'"),
        ("lvis,v0.5,", "lvsi,v0.5,", "line 2: group is 'lvsi'; .* did you mean 'lvis'"),
        ("archives/lvis_v0.5_train", "../archives/lvis_v0.5_train", "line 2: file is .*below datasets_root"),
        ("archives/lvis_v0.5_train", "/tmp/lvis_v0.5_train", "line 2: file is .*below datasets_root"),
        (",lvis,lvis_v0.5_train.json,", ",a/../../b,lvis_v0.5_train.json,", "line 2: unpack_into is 'a/../../b'"),
        (",lvis,lvis_v0.5_train.json,", ",lvis,../lvis_v0.5_train.json,", "line 2: members is '../lvis_v0.5_train"),
        ("group,", "group,group,", "duplicate columns: group"),
    ],
)
def test_rows_that_no_recipe_asks_for_or_that_leave_the_root_are_refused(tmp_path, old, new, message):
    text = (ROOT / "config/sources.csv").read_text()
    assert old in text
    (tmp_path / "s.csv").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        read_sources(tmp_path / "s.csv")
