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
            recipe=shared_recipe,
            root=lambda wildcards, output: recipe.datasets_root,
            settings=stage_settings.mini_settings(recipe),
        shell:
            "python -m pipeline_steps.make_mini --recipe {params.recipe:q} --output {params.root:q} 2>&1 | tee -i {log:q}"

else:

    if recipe.data.download.on_this_machine:

        localrules:
            check_data,
            download_lvis,
            download_coco_annotations,
            download_coco_images,
            download_openimages_tables,
            download_openimages_images,
            download_openimages_own_images,
            download_weights,

    rule download_lvis:
        output:
            DATA.lvis_train.parent / "{file}",
        log:
            f"{LOGS}/download/{{file}}.log",
        benchmark:
            f"{BENCHMARKS}/download/{{file}}.tsv"
        wildcard_constraints:
            file=absent(DATA.lvis_train, DATA.lvis_val, DATA.lvis_test_info),
        conda:
            ENVIRONMENT
        params:
            recipe=shared_recipe,
        shell:
            "python -m pipeline_steps.download --recipe {params.recipe:q} --only lvis --file {wildcards.file:q} 2>&1 | tee -i {log:q}"

    rule download_coco_annotations:
        output:
            DATA.coco_train.parent / "{file}",
        log:
            f"{LOGS}/download/{{file}}.log",
        benchmark:
            f"{BENCHMARKS}/download/{{file}}.tsv"
        wildcard_constraints:
            file=absent(DATA.coco_train, DATA.coco_val),
        conda:
            ENVIRONMENT
        params:
            recipe=shared_recipe,
        shell:
            "python -m pipeline_steps.download --recipe {params.recipe:q} --only coco_annotations --file {wildcards.file:q} 2>&1 | tee -i {log:q}"

    rule download_openimages_tables:
        output:
            DATA.openimages_root / "{file}",
        log:
            f"{LOGS}/download/{{file}}.log",
        benchmark:
            f"{BENCHMARKS}/download/{{file}}.tsv"
        wildcard_constraints:
            file=absent(*OPENIMAGES_TABLES),
        conda:
            ENVIRONMENT
        params:
            recipe=shared_recipe,
        shell:
            "python -m pipeline_steps.download --recipe {params.recipe:q} --only openimages_tables --file {wildcards.file:q} 2>&1 | tee -i {log:q}"

    rule download_weights:
        output:
            DATA.root / "weights/{file}",
        log:
            f"{LOGS}/download/weights_{{file}}.log",
        benchmark:
            f"{BENCHMARKS}/download/weights_{{file}}.tsv"
        wildcard_constraints:
            file=absent(*(Path(recipe.path(weights.file)) for weights in recipe.weights)),
        conda:
            ENVIRONMENT
        params:
            recipe=shared_recipe,
        shell:
            "python -m pipeline_steps.download --recipe {params.recipe:q} --only weights --file {wildcards.file:q} 2>&1 | tee -i {log:q}"

    rule check_data:
        input:
            DATA.root / "{folder}/{file}",
        output:
            DATA.manifests / "{folder}/{file}.json",
        log:
            f"{LOGS}/check_data/{{folder}}/{{file}}.log",
        benchmark:
            f"{BENCHMARKS}/check_data/{{folder}}/{{file}}.tsv"
        wildcard_constraints:
            folder="lvis|coco/annotations|openimages",
        conda:
            ENVIRONMENT
        params:
            recipe=shared_recipe,
        shell:
            "python -m pipeline_steps.download --recipe {params.recipe:q} --check --file {wildcards.file:q} --manifest {output:q} 2>&1 | tee -i {log:q}"

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
            recipe=shared_recipe,
        shell:
            "python -m pipeline_steps.download --recipe {params.recipe:q} --only coco_images --manifest {output:q} 2>&1 | tee -i {log:q}"

    rule choose_openimages:
        input:
            checked(DATA.lvis_train, *OPENIMAGES_TABLES),
            DATA.openimages_table,
        output:
            DATA.openimages_ids,
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
            recipe=shared_recipe,
            settings=stage_settings.openimages_settings(recipe),
            dataset="openimages_train",
        shell:
            "python -m pipeline_steps.select_openimages --recipe {params.recipe:q} --dataset {params.dataset:q}"
            " --list-only {output:q} 2>&1 | tee -i {log:q}"

    use rule choose_openimages as choose_openimages_own with:
        input:
            checked(*OPENIMAGES_TABLES),
        output:
            DATA.openimages_own_ids,
        log:
            f"{LOGS}/choose_openimages_own.log",
        benchmark:
            f"{BENCHMARKS}/choose_openimages_own.tsv"
        params:
            recipe=shared_recipe,
            settings=stage_settings.openimages_own_settings(recipe),
            dataset="openimages_own_train",

    rule download_openimages_images:
        input:
            DATA.openimages_ids,
        output:
            OPENIMAGES_IMAGES,
        log:
            f"{LOGS}/download/openimages_images.log",
        benchmark:
            f"{BENCHMARKS}/download/openimages_images.tsv"
        conda:
            ENVIRONMENT
        params:
            recipe=shared_recipe,
        shell:
            "python -m pipeline_steps.download --recipe {params.recipe:q} --only openimages_images --image-list {input:q} --manifest {output:q}"
            " 2>&1 | tee -i {log:q}"

    use rule download_openimages_images as download_openimages_own_images with:
        input:
            DATA.openimages_own_ids,
        output:
            OPENIMAGES_OWN_IMAGES,
        log:
            f"{LOGS}/download/openimages_own_images.log",
        benchmark:
            f"{BENCHMARKS}/download/openimages_own_images.tsv"


rule index_coco_boxes:
    input:
        checked(DATA.lvis_train, DATA.coco_train),
    output:
        DATA.coco_boxes_train,
    log:
        f"{LOGS}/index_coco_boxes.log",
    benchmark:
        f"{BENCHMARKS}/index_coco_boxes.tsv"
    conda:
        ENVIRONMENT
    params:
        recipe=shared_recipe,
    shell:
        "python -m pipeline_steps.index_coco_boxes --recipe {params.recipe:q} --output {output:q} 2>&1 | tee -i {log:q}"


rule select_openimages:
    input:
        checked(DATA.lvis_train, *OPENIMAGES_TABLES),
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
        recipe=shared_recipe,
        settings=stage_settings.openimages_settings(recipe),
        dataset="openimages_train",
    shell:
        "python -m pipeline_steps.select_openimages --recipe {params.recipe:q} --dataset {params.dataset:q}"
        " --output {output.annotations:q} --summary {output.summary:q} 2>&1 | tee -i {log:q}"


use rule select_openimages as select_openimages_own with:
    input:
        checked(*OPENIMAGES_TABLES),
        OPENIMAGES_OWN_IMAGES,
    output:
        annotations=DATA.openimages_own_train,
        summary=DATA.openimages_own_summary,
    log:
        f"{LOGS}/select_openimages_own.log",
    benchmark:
        f"{BENCHMARKS}/select_openimages_own.tsv"
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        recipe=shared_recipe,
        settings=stage_settings.openimages_own_settings(recipe),
        dataset="openimages_own_train",


rule data:
    input:
        [
            file
            for name, files in DATASET_FILES.items()
            for file in files
            if name != "openimages_train" or USES_OPENIMAGES
            if name != "openimages_own_train" or name in USED_DATASETS
        ],
        DATA.coco_boxes_train,
        checked(DATA.coco_val) if COCO_EXPERTS else [],
        SPLIT_FILES["val"],
        SPLIT_FILES["test"],
