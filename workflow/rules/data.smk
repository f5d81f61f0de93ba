# Data: download (or the mini world), OpenImages selection, COCO boxes for COCO Ignore.


if not DOWNLOADS:

    rule make_mini:
        output:
            DATA.lvis_train,
            DATA.lvis_val,
            DATA.lvis_test_info,
            DATA.coco_train,
            DATA.coco_val,
            OPENIMAGES_TABLES,
            CATEGORY_TABLES,
        log:
            f"{LOGS}/make_mini.log",
        benchmark:
            f"{BENCHMARKS}/make_mini.tsv"
        conda:
            ENVIRONMENT
        params:
            recipe=RECIPE,
            settings=slices.mini_slice(recipe),
        shell:
            "python -m pipeline_steps.make_mini --recipe {params.recipe} --output {recipe.datasets_root} 2>&1 | tee -i {log}"

else:

    if recipe.data.download.on_this_machine:

        localrules:
            download_lvis,
            download_coco_annotations,
            download_coco_images,
            download_openimages_tables,
            download_openimages_images,
            download_weights,

    rule download_lvis:
        output:
            DATA.lvis_train,
            DATA.lvis_val,
            DATA.lvis_test_info,
        log:
            f"{LOGS}/download/lvis.log",
        benchmark:
            f"{BENCHMARKS}/download/lvis.tsv"
        conda:
            ENVIRONMENT
        params:
            recipe=RECIPE,
        shell:
            "python -m pipeline_steps.download --recipe {params.recipe} --only lvis 2>&1 | tee -i {log}"

    rule download_coco_annotations:
        output:
            DATA.coco_train,
            DATA.coco_val,
        log:
            f"{LOGS}/download/coco_annotations.log",
        benchmark:
            f"{BENCHMARKS}/download/coco_annotations.tsv"
        conda:
            ENVIRONMENT
        params:
            recipe=RECIPE,
        shell:
            "python -m pipeline_steps.download --recipe {params.recipe} --only coco_annotations 2>&1 | tee -i {log}"

    rule download_coco_images:
        output:
            COCO_IMAGES,
        log:
            f"{LOGS}/download/coco_images.log",
        benchmark:
            f"{BENCHMARKS}/download/coco_images.tsv"
        conda:
            ENVIRONMENT
        params:
            recipe=RECIPE,
        shell:
            "python -m pipeline_steps.download --recipe {params.recipe} --only coco_images --manifest {output} 2>&1 | tee -i {log}"

    rule download_openimages_tables:
        output:
            OPENIMAGES_TABLES,
        log:
            f"{LOGS}/download/openimages_tables.log",
        benchmark:
            f"{BENCHMARKS}/download/openimages_tables.tsv"
        conda:
            ENVIRONMENT
        params:
            recipe=RECIPE,
        shell:
            "python -m pipeline_steps.download --recipe {params.recipe} --only openimages_tables 2>&1 | tee -i {log}"

    rule choose_openimages:
        input:
            DATA.lvis_train,
            OPENIMAGES_TABLES,
            DATA.openimages_table,
        output:
            DATA.root / "derived/openimages_ids.txt",
        log:
            f"{LOGS}/choose_openimages.log",
        benchmark:
            f"{BENCHMARKS}/choose_openimages.tsv"
        conda:
            ENVIRONMENT
        resources:
            mem_mb=4000,
            runtime=60,
        params:
            recipe=RECIPE,
            settings=slices.openimages_slice(recipe),
        shell:
            "python -m pipeline_steps.select_openimages --recipe {params.recipe} --list-only {output} 2>&1 | tee -i {log}"

    rule download_openimages_images:
        input:
            DATA.root / "derived/openimages_ids.txt",
        output:
            OPENIMAGES_IMAGES,
        log:
            f"{LOGS}/download/openimages_images.log",
        benchmark:
            f"{BENCHMARKS}/download/openimages_images.tsv"
        conda:
            ENVIRONMENT
        params:
            recipe=RECIPE,
        shell:
            "python -m pipeline_steps.download --recipe {params.recipe} --only openimages_images --image-list {input} --manifest {output}"
            " 2>&1 | tee -i {log}"

    rule download_weights:
        output:
            f"{recipe.datasets_root}/weights/{{file}}",
        log:
            f"{LOGS}/download/weights_{{file}}.log",
        benchmark:
            f"{BENCHMARKS}/download/weights_{{file}}.tsv"
        conda:
            ENVIRONMENT
        params:
            recipe=RECIPE,
        shell:
            "python -m pipeline_steps.download --recipe {params.recipe} --only weights --file {wildcards.file} 2>&1 | tee -i {log}"


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
    conda:
        ENVIRONMENT
    params:
        recipe=RECIPE,
    shell:
        "python -m pipeline_steps.index_coco_boxes --recipe {params.recipe} --output {output} 2>&1 | tee -i {log}"


rule select_openimages:
    input:
        DATA.lvis_train,
        OPENIMAGES_TABLES,
        DATA.openimages_table,
        OPENIMAGES_IMAGES,
    output:
        annotations=DATA.openimages_train,
        summary=DATA.openimages_summary,
    log:
        f"{LOGS}/select_openimages.log",
    benchmark:
        f"{BENCHMARKS}/select_openimages.tsv"
    conda:
        ENVIRONMENT
    params:
        recipe=RECIPE,
        settings=slices.openimages_slice(recipe),
    shell:
        "python -m pipeline_steps.select_openimages --recipe {params.recipe} --output {output.annotations} --summary {output.summary} 2>&1 | tee -i {log}"


rule data:
    input:
        [
            file
            for name, files in DATASET_FILES.items()
            for file in files
            if name != "openimages_train" or USES_OPENIMAGES
        ],
        DATA.coco_boxes_train,
        SPLIT_FILES["val"],
        SPLIT_FILES["test"],
