# Data: download (or the mini world), OpenImages selection, COCO boxes for COCO Ignore.


if recipe.data.source == "mini":

    rule make_mini:
        output:
            DATA.source_files(),
        params:
            settings=slices.mini_slice(recipe),
        log:
            f"{LOGS}/make_mini.log",
        benchmark:
            f"{BENCHMARKS}/make_mini.tsv"
        shell:
            "{STEP}.make_mini --recipe {RECIPE} --output {recipe.datasets_root} {LOG} {log}"

else:

    rule download_data:
        output:
            DATA.source_files(),
        log:
            f"{LOGS}/download.log",
        benchmark:
            f"{BENCHMARKS}/download.tsv"
        localrule: True
        shell:
            "{STEP}.download --recipe {RECIPE} {LOG} {log}"


rule index_coco_boxes:
    input:
        DATA.lvis_train,
        DATA.coco_train,
    output:
        DATA.coco_boxes_train,
    log:
        f"{LOGS}/index_coco_boxes.log",
    benchmark:
        f"{BENCHMARKS}/index_coco_boxes.tsv"
    shell:
        "{STEP}.index_coco_boxes --recipe {RECIPE} --output {output} {LOG} {log}"


rule select_openimages:
    input:
        DATA.lvis_train,
        DATA.openimages_tables(),
        recipe.path(recipe.data.openimages_to_lvis),
    output:
        annotations=DATA.openimages_train,
        summary=DATA.openimages_summary,
    params:
        settings=slices.openimages_slice(recipe),
    log:
        f"{LOGS}/select_openimages.log",
    benchmark:
        f"{BENCHMARKS}/select_openimages.tsv"
    shell:
        "{STEP}.select_openimages --recipe {RECIPE} --output {output.annotations} --summary {output.summary} {LOG} {log}"


DATASET_FILES = {
    "lvis_train": [DATA.lvis_train],
    "coco_train": [DATA.coco_train],
    "openimages_train": [DATA.openimages_train],
}


def training_data(name):
    """Annotation files that the training of ``name`` reads."""
    model = recipe.model(name)
    files = [file for dataset in model.datasets for file in DATASET_FILES[dataset]]
    if recipe.training_of(model).coco_ignore.enabled and "lvis_train" in model.datasets:
        files.append(DATA.coco_boxes_train)
    if "openimages_train" in model.datasets and DATA.lvis_train not in files:
        files.append(DATA.lvis_train)  # its category numbering and frequencies
    return files


rule data:
    input:
        sorted({file for name in FOLDER for file in training_data(name)}),
        DATA.lvis_val,
        DATA.lvis_test_info,
