"""Download the public data sets and pre-trained weights below ``datasets_root``.

Complete files on the disk are used in place. Interrupted downloads resume where they stopped. The table of
sources is ``config/sources.csv``; ``data.download`` in the recipe sets mirrors, parallel files and retries.
"""

import argparse
from pathlib import Path

from pipeline_steps.common.atomic import write_json
from pipeline_steps.common.cli import run_step, step_parser
from pipeline_steps.common.errors import UserError
from pipeline_steps.common.files import free_space
from pipeline_steps.common.progress import format_bytes
from pipeline_steps.data.images_on_disk import count_files
from pipeline_steps.data.sources.source import GROUPS, Source, mirrored, read_sources
from pipeline_steps.data.sources.space import BYTES_PER_IMAGE, bytes_to_fetch, most_images, space_needed
from pipeline_steps.downloads.disk import require_space
from pipeline_steps.downloads.groups import Settings, download_group, examine, manifest, require_whole
from pipeline_steps.downloads.openimages_images import (
    absent_images,
    download_images,
    read_image_list,
    require_few_failures,
)
from pipeline_steps.downloads.transfer import Patience
from pipeline_steps.recipe import Recipe, load_recipe

parser = step_parser("download", __doc__)
parser.add_argument("--recipe", required=True, help="recipe YAML file")
parser.add_argument("--only", choices=GROUPS, action="append", help="this group only (may be repeated)")
parser.add_argument(
    "--file", default="*", help="only downloads, or files unpacked from them, whose name matches this pattern"
)
parser.add_argument("--image-list", type=Path, help="openimages_images: file with one image id per line")
parser.add_argument("--manifest", type=Path, help="write what is then on the disk to this JSON file")
parser.add_argument("--check", action="store_true", help="download nothing, check that everything is complete")
parser.add_argument("--dry-run", action="store_true", help="print what would be downloaded, and how much")


def _settings(recipe: Recipe) -> Settings:
    options = recipe.data.download
    return Settings(
        root=Path(recipe.datasets_root),
        mirrors=dict(options.mirrors),
        parallel_files=options.parallel_files,
        keep_archives=options.keep_archives,
        patience=Patience(retries=options.retries, timeout=options.timeout_seconds),
    )


def _print_plan(sources: list[Source], settings: Settings) -> None:
    states = [examine(source, settings.root) for source in sources]
    for state in states:
        source, remaining = state.source, bytes_to_fetch(state.source, settings.root)
        size = "size unknown" if not source.planned_bytes else format_bytes(remaining)
        if source.bytes is None and source.planned_bytes:
            size = f"at most {size}"
        if (settings.root / source.file).exists():
            size = "to unpack"
        if not state.absent:
            size = "on disk"
        address = mirrored(source.url, settings.mirrors)
        print(f"{'INCOMPLETE' if state.problems else size:>16}  {source.file}  <-  {address}  ({source.licence})")
        for problem in state.problems:
            print(f"{'':16}    {problem}")
    missing = [state.source for state in states if state.absent]
    total = sum(bytes_to_fetch(source, settings.root) for source in missing)
    unknown = sum(not source.planned_bytes for source in missing)
    print(
        f"{len(missing)} of {len(states)} to fetch: {format_bytes(total)} and {unknown} of unknown size; "
        f"{format_bytes(space_needed(missing, settings.root))} of disk with what is unpacked, "
        f"{format_bytes(free_space(settings.root))} are free"
    )


def _print_image_plan(source: Source, arguments: argparse.Namespace, recipe: Recipe, settings: Settings) -> None:
    address = mirrored(source.url, settings.mirrors)
    if arguments.image_list:
        ids = read_image_list(arguments.image_list)
        missing = len(absent_images(ids, (settings.root / source.file).parent))
        amount = f"{missing} of {len(ids)} images to fetch"
    else:
        missing = most_images(recipe)
        amount = f"up to {missing} images, chosen by: select_openimages --list-only FILE"
    size = f"~{format_bytes(missing * BYTES_PER_IMAGE)}"
    print(f"{size:>16}  {source.file}  <-  {address}  ({source.licence}): {amount}")


def _fetch_images(source: Source, arguments: argparse.Namespace, recipe: Recipe, settings: Settings) -> None:
    if arguments.image_list is None:
        raise UserError("openimages_images needs --image-list (written by: select_openimages --list-only FILE)")
    ids = read_image_list(arguments.image_list)
    folder = (settings.root / source.file).parent
    require_space(folder, len(absent_images(ids, folder)) * BYTES_PER_IMAGE, f"{source.file} (estimated)")
    outcome = download_images(
        ids,
        mirrored(source.url, settings.mirrors),
        folder,
        recipe.data.download.parallel_images,
        settings.patience,
        source.most,
    )
    print(f"{outcome.present} images were there, {outcome.fetched} fetched, {len(outcome.failed)} failed")
    require_few_failures(outcome, recipe.data.download.max_failed_images, len(ids))
    if arguments.manifest:
        there = count_files(folder / f"{image_id}.jpg" for image_id in ids if image_id not in outcome.failed)
        failed = dict(sorted(outcome.failed.items()))
        write_json(arguments.manifest, {"images": len(ids), "bytes": there["bytes"], "failed": failed}, indent=1)


def main(arguments: argparse.Namespace) -> None:
    """Fetch the chosen groups."""
    recipe = load_recipe(arguments.recipe)
    if recipe.data.source != "download":
        raise UserError(
            f"recipe {recipe.name} has data.source {recipe.data.source}: there is nothing to download; its data are "
            "made by `python -m pipeline_steps.make_mini`"
        )
    settings = _settings(recipe)
    groups = arguments.only or [group for group in GROUPS if group != "openimages_images" or arguments.dry_run]
    listed = [
        source.matching(arguments.file)
        for source in read_sources(recipe.data.download.sources)
        if source.group in groups and source.lvis_version in ("", recipe.lvis_version)
    ]
    sources = [source for source in listed if source is not None]
    if not sources:
        raise UserError(f"{recipe.data.download.sources}: no source of {groups} matches {arguments.file!r}")
    images = [source for source in sources if source.group == "openimages_images"]
    files = [source for source in sources if source.group != "openimages_images"]
    if arguments.dry_run:
        if files:
            _print_plan(files, settings)
        for source in images:
            _print_image_plan(source, arguments, recipe, settings)
        return
    if files:
        paths = (
            require_whole(files, settings.root, look_inside=True)
            if arguments.check
            else download_group(files, settings)
        )
        if arguments.manifest:
            write_json(arguments.manifest, manifest(paths, settings.root), indent=1)
    for source in images:
        _fetch_images(source, arguments, recipe, settings)


if __name__ == "__main__":
    run_step(parser, main)
