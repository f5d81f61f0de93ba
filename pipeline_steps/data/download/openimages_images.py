"""Download chosen OpenImages images one by one from the public bucket, many at once."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from pipeline_steps.common.atomic import atomic_output
from pipeline_steps.common.errors import UserError, listing
from pipeline_steps.common.files import require_file
from pipeline_steps.common.progress import Progress
from pipeline_steps.data.download.transfer import RETRIED_STATUS, Patience

IMAGE_ID = re.compile(r"^(?:train/)?([0-9a-f]{8,32})$")


@dataclass
class Outcome:
    """What became of the images of a list."""

    present: int = 0
    fetched: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def read_image_list(path: str | Path) -> list[str]:
    """Image ids, one in a line, as ``<id>`` or ``train/<id>``; empty lines are skipped, duplicates kept once.

    Raises:
        UserError: missing file, or a line that is no OpenImages id.
    """
    path = require_file(path, "list of OpenImages images")
    ids: dict[str, None] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.strip()
        if not text:
            continue
        match = IMAGE_ID.match(text)
        if not match:
            raise UserError(f"{path}, line {number}: {text[:40]!r} is no OpenImages image id (hexadecimal digits)")
        ids[match[1]] = None
    return list(ids)


def is_whole_jpeg(content: bytes) -> bool:
    """Whether bytes begin and end as a JPEG file does."""
    return content.startswith(b"\xff\xd8") and content.rstrip(b"\0").endswith(b"\xff\xd9")


def _session(patience: Patience, parallel: int) -> requests.Session:
    retry = Retry(
        total=patience.retries,
        backoff_factor=patience.first_wait,
        backoff_max=patience.longest_wait,
        status_forcelist=RETRIED_STATUS,
        raise_on_status=False,
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=parallel, max_retries=retry))
    return session


def download_images(ids: Iterable[str], url: str, folder: Path, parallel: int, patience: Patience) -> Outcome:
    """Fetch ``url`` with ``{id}`` replaced for each id into ``folder/<id>.jpg``; images that are there are kept.

    Images that cannot be had are listed with the reason in the outcome instead of stopping the others.
    """
    ids = list(ids)
    outcome, guard = Outcome(), threading.Lock()
    progress = Progress("OpenImages images", len(ids), "images")
    folder.mkdir(parents=True, exist_ok=True)
    session = _session(patience, parallel)

    def content_of(image_id: str) -> bytes:
        address = url.replace("{id}", image_id)
        if "://" not in address or address.startswith("file://"):
            return Path(address.removeprefix("file://")).read_bytes()
        with session.get(address, timeout=patience.timeout) as response:
            if response.status_code != 200:
                raise ValueError(f"status {response.status_code}")
            return response.content

    def work(image_id: str) -> None:
        target = folder / f"{image_id}.jpg"
        problem, fetched = "", False
        if not target.exists():
            try:
                content = content_of(image_id)
                if not is_whole_jpeg(content):
                    raise ValueError("not a whole JPEG file")
                with atomic_output(target) as temporary:
                    temporary.write_bytes(content)
                fetched = True
            except (requests.RequestException, ValueError, FileNotFoundError) as error:
                problem = str(error) if isinstance(error, ValueError) else type(error).__name__
        with guard:
            outcome.fetched += fetched
            outcome.present += not fetched and not problem
            if problem:
                outcome.failed[image_id] = problem
            progress.advance(note=f"{len(outcome.failed)} failed" if outcome.failed else "")

    with session, ThreadPoolExecutor(parallel) as pool:
        for future in [pool.submit(work, image_id) for image_id in ids]:
            future.result()
    return outcome


def require_few_failures(outcome: Outcome, allowed: int, total: int) -> None:
    """Stop if more images failed than the recipe allows.

    Raises:
        UserError: with the first failures and their reasons.
    """
    if len(outcome.failed) > allowed:
        reasons = listing(f"{image_id}: {reason}" for image_id, reason in sorted(outcome.failed.items()))
        raise UserError(
            f"{len(outcome.failed)} of {total} OpenImages images could not be had ({reasons}); start again to try them "
            "once more, or raise data.download.max_failed_images"
        )
