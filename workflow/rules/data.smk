# Data: download (or the mini world), OpenImages selection, COCO boxes for COCO Ignore.


if not DATA.downloaded:

    rule make_mini:
        output:
            DATA.lvis_train,
            DATA.lvis_val,
            DATA.lvis_test_info,
            DATA.coco_train,
            DATA.coco_val,
            DATA.openimages_tables,
            DATA.coco_table,
            DATA.openimages_table,
            DATA.parents,
        log:
            RESULT.log("make_mini"),
        benchmark:
            RESULT.benchmark("make_mini")
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
            RESULT.log("download/{file}"),
        benchmark:
            RESULT.benchmark("download/{file}")
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
            RESULT.log("download/{file}"),
        benchmark:
            RESULT.benchmark("download/{file}")
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
            RESULT.log("download/{file}"),
        benchmark:
            RESULT.benchmark("download/{file}")
        wildcard_constraints:
            file=absent(*DATA.openimages_tables),
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
            RESULT.log("download/weights_{file}"),
        benchmark:
            RESULT.benchmark("download/weights_{file}")
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
            RESULT.log("check_data/{folder}/{file}"),
        benchmark:
            RESULT.benchmark("check_data/{folder}/{file}")
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
            DATA.coco_images_manifest,
        log:
            RESULT.log("download/coco_images"),
        benchmark:
            RESULT.benchmark("download/coco_images")
        conda:
            ENVIRONMENT
        params:
            recipe=shared_recipe,
        shell:
            "python -m pipeline_steps.download --recipe {params.recipe:q} --only coco_images --manifest {output:q} 2>&1 | tee -i {log:q}"

    rule choose_openimages:
        input:
            DATA.checked(DATA.lvis_train, *DATA.openimages_tables),
            DATA.openimages_table,
        output:
            DATA.openimages_ids,
        log:
            RESULT.log("choose_openimages"),
        benchmark:
            RESULT.benchmark("choose_openimages")
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
            DATA.checked(*DATA.openimages_tables),
        output:
            DATA.openimages_own_ids,
        log:
            RESULT.log("choose_openimages_own"),
        benchmark:
            RESULT.benchmark("choose_openimages_own")
        params:
            recipe=shared_recipe,
            settings=stage_settings.openimages_own_settings(recipe),
            dataset="openimages_own_train",

    rule download_openimages_images:
        input:
            DATA.openimages_ids,
        output:
            DATA.openimages_images_manifest,
        log:
            RESULT.log("download/openimages_images"),
        benchmark:
            RESULT.benchmark("download/openimages_images")
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
            DATA.openimages_own_images_manifest,
        log:
            RESULT.log("download/openimages_own_images"),
        benchmark:
            RESULT.benchmark("download/openimages_own_images")


rule index_coco_boxes:
    input:
        DATA.checked(DATA.lvis_train, DATA.coco_train),
    output:
        DATA.coco_boxes_train,
    log:
        RESULT.log("index_coco_boxes"),
    benchmark:
        RESULT.benchmark("index_coco_boxes")
    conda:
        ENVIRONMENT
    params:
        recipe=shared_recipe,
    shell:
        "python -m pipeline_steps.index_coco_boxes --recipe {params.recipe:q} --output {output:q} 2>&1 | tee -i {log:q}"


rule select_openimages:
    input:
        DATA.checked(DATA.lvis_train, *DATA.openimages_tables),
        DATA.openimages_table,
        DATA.noted(DATA.openimages_images_manifest),
    output:
        annotations=DATA.openimages_train,
        summary=DATA.openimages_summary,
    log:
        RESULT.log("select_openimages"),
    benchmark:
        RESULT.benchmark("select_openimages")
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
        DATA.checked(*DATA.openimages_tables),
        DATA.noted(DATA.openimages_own_images_manifest),
    output:
        annotations=DATA.openimages_own_train,
        summary=DATA.openimages_own_summary,
    log:
        RESULT.log("select_openimages_own"),
    benchmark:
        RESULT.benchmark("select_openimages_own")
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        recipe=shared_recipe,
        settings=stage_settings.openimages_own_settings(recipe),
        dataset="openimages_own_train",


rule data:
    input:
        DATA.everything(),
