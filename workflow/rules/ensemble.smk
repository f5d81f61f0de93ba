# Re-scored ensemble of members and experts, then multi-scale masks for the merged boxes.


rule rescore_ensemble:
    input:
        categories=DATA.lvis_train,
        tables=[*CATEGORY_TABLES, *EXPERT_CLASSES],
        detections=members_boxes,
    output:
        f"{RESULTS}/{{variant}}ensemble/{{split}}/boxes.parquet",
    log:
        f"{LOGS}/rescore_ensemble/{{variant}}{{split}}.log",
    benchmark:
        f"{BENCHMARKS}/rescore_ensemble/{{variant}}{{split}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        recipe=recipe_file,
        settings=lambda wildcards: stage_settings.ensemble_settings(TESTED[wildcards.variant], wildcards.split),
        detections=lambda wildcards, input: named_files(members(wildcards), input.detections),
    shell:
        "python -m pipeline_steps.rescore_ensemble --recipe {params.recipe:q} --categories {input.categories:q} --split {wildcards.split:q}"
        " --detections {params.detections:q} --output {output:q} 2>&1 | tee -i {log:q}"


rule predict_masks:
    input:
        boxes=f"{RESULTS}/{{variant}}{{boxes}}/boxes.parquet",
        weights=mask_weights,
        images=lambda wildcards: SPLIT_FILES[split_of(wildcards)],
    output:
        f"{RESULTS}/{{variant}}{{boxes}}/masks_shards/{{shard}}-of-{SHARDS}.parquet",
    log:
        f"{LOGS}/predict_masks/{{variant}}{{boxes}}_{{shard}}-of-{SHARDS}.log",
    benchmark:
        f"{BENCHMARKS}/predict_masks/{{variant}}{{boxes}}_{{shard}}-of-{SHARDS}.tsv"
    wildcard_constraints:
        boxes=one_of(MASKED),
    conda:
        ENVIRONMENT
    threads: recipe.compute.threads
    resources:
        gpu=recipe.compute.inference_gpus,
        mem_mb=1000 * recipe.compute.memory_gb,
        runtime=growing_hours(recipe.compute.inference_hours),
    params:
        recipe=recipe_file,
        shards=SHARDS,
        settings=lambda wildcards: stage_settings.masks_settings(TESTED[wildcards.variant]),
        split=split_of,
        weights=lambda wildcards, input: named_files((Path(file).parent.name for file in input.weights), input.weights),
    shell:
        "python -m pipeline_steps.launch --gpus {resources.gpu} --threads {threads} --one-process"
        " predict_masks --recipe {params.recipe:q} --weights {params.weights:q} --boxes {input.boxes:q}"
        " --split {params.split:q} --shard {wildcards.shard:q} --shards {params.shards:q} --output {output:q} 2>&1 | tee -i {log:q}"


rule gather_masks:
    input:
        [f"{RESULTS}/{{variant}}{{boxes}}/masks_shards/{shard}-of-{SHARDS}.parquet" for shard in range(SHARDS)],
    output:
        f"{RESULTS}/{{variant}}{{boxes}}/detections.parquet",
    log:
        f"{LOGS}/gather_masks/{{variant}}{{boxes}}.log",
    benchmark:
        f"{BENCHMARKS}/gather_masks/{{variant}}{{boxes}}.tsv"
    wildcard_constraints:
        boxes=one_of(MASKED),
    conda:
        ENVIRONMENT
    shell:
        "python -m pipeline_steps.gather_shards --inputs {input:q} --output {output:q} 2>&1 | tee -i {log:q}"


rule ensemble:
    input:
        [f"{RESULTS}/ensemble/{split}/detections.parquet" for split in SPLITS],
