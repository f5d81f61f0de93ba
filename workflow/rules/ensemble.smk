# Re-scored ensemble of members and experts, then multi-scale masks for the merged boxes.


rule rescore_ensemble:
    input:
        categories=DATA.lvis_train,
        tables=DATA.category_tables,
        detections=lambda wildcards: list(RESULT.members_boxes(wildcards.split, wildcards.variant).values()),
    output:
        RESULT.ensemble_boxes,
    log:
        RESULT.log("rescore_ensemble/{variant}{split}"),
    benchmark:
        RESULT.benchmark("rescore_ensemble/{variant}{split}")
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        recipe=recipe_file,
        settings=lambda wildcards: stage_settings.ensemble_settings(RESULT.tested[wildcards.variant], wildcards.split),
        detections=lambda wildcards, input: name_files(
            names(RESULT.tested[wildcards.variant].ensemble.members), input.detections
        ),
    shell:
        "python -m pipeline_steps.rescore_ensemble --recipe {params.recipe:q} --categories {input.categories:q} --split {wildcards.split:q}"
        " --detections {params.detections:q} --output {output:q} 2>&1 | tee -i {log:q}"


rule predict_masks:
    input:
        boxes=RESULT.boxes,
        weights=lambda wildcards: list(RESULT.mask_models(wildcards.boxes, wildcards.variant).values()),
        images=lambda wildcards: TESTED_DATA[split_of(wildcards)],
    output:
        RESULT.masks_shard,
    log:
        RESULT.log("predict_masks/{variant}{boxes}_{shard}"),
    benchmark:
        RESULT.benchmark("predict_masks/{variant}{boxes}_{shard}")
    wildcard_constraints:
        boxes=one_of(RESULT.masked),
    conda:
        ENVIRONMENT
    threads: recipe.compute.threads
    resources:
        gpu=recipe.compute.inference_gpus,
        mem_mb=1000 * recipe.compute.memory_gb,
        runtime=INFERENCE_TIME,
    params:
        recipe=recipe_file,
        shards=SHARDS,
        settings=lambda wildcards: stage_settings.masks_settings(RESULT.tested[wildcards.variant]),
        split=split_of,
        weights=lambda wildcards, input: name_files(
            RESULT.mask_models(wildcards.boxes, wildcards.variant), input.weights
        ),
    shell:
        "python -m pipeline_steps.launch --gpus {resources.gpu} --threads {threads} --one-process"
        " predict_masks --recipe {params.recipe:q} --weights {params.weights:q} --boxes {input.boxes:q}"
        " --split {params.split:q} --shard {wildcards.shard:q} --shards {params.shards:q} --output {output:q} 2>&1 | tee -i {log:q}"


rule gather_masks:
    input:
        expand(RESULT.masks_shard, shard=range(SHARDS), allow_missing=True),
    output:
        RESULT.detections,
    log:
        RESULT.log("gather_masks/{variant}{boxes}"),
    benchmark:
        RESULT.benchmark("gather_masks/{variant}{boxes}")
    wildcard_constraints:
        boxes=one_of(RESULT.masked),
    conda:
        ENVIRONMENT
    shell:
        "python -m pipeline_steps.gather_shards --inputs {input:q} --output {output:q} 2>&1 | tee -i {log:q}"


rule ensemble:
    input:
        [RESULT.ensemble(split) for split in SPLITS],
