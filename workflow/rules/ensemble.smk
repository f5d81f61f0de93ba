# Re-scored ensemble of members and experts, then multi-scale masks for the merged boxes.


rule rescore_ensemble:
    input:
        categories=DATA.lvis_train,
        tables=CATEGORY_TABLES,
        detections=[f"{RESULTS}/predictions/{{split}}/{member}/boxes.parquet" for member in MEMBERS],
    output:
        f"{RESULTS}/ensemble/{{split}}/boxes.parquet",
    log:
        f"{LOGS}/rescore_ensemble/{{split}}.log",
    benchmark:
        f"{BENCHMARKS}/rescore_ensemble/{{split}}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        recipe=RECIPE,
        settings=lambda wildcards: slices.ensemble_slice(recipe, wildcards.split),
        detections=lambda wildcards, input: named_files(MEMBERS, input.detections),
    shell:
        "python -m pipeline_steps.rescore_ensemble --recipe {params.recipe} --categories {input.categories} --split {wildcards.split}"
        " --detections {params.detections} --output {output} 2>&1 | tee -i {log}"


rule predict_masks:
    input:
        boxes=f"{RESULTS}/{{boxes}}/boxes.parquet",
        weights=mask_weights,
        images=lambda wildcards: SPLIT_FILES[split_of(wildcards)],
    output:
        f"{RESULTS}/{{boxes}}/masks_shards/{{shard}}-of-{SHARDS}.parquet",
    log:
        f"{LOGS}/predict_masks/{{boxes}}_{{shard}}-of-{SHARDS}.log",
    benchmark:
        f"{BENCHMARKS}/predict_masks/{{boxes}}_{{shard}}-of-{SHARDS}.tsv"
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
        recipe=RECIPE,
        shards=SHARDS,
        settings=slices.masks_slice(recipe),
        split=split_of,
        weights=lambda wildcards, input: named_files((Path(file).parent.name for file in input.weights), input.weights),
    shell:
        "python -m pipeline_steps.predict_masks --recipe {params.recipe} --weights {params.weights} --boxes {input.boxes}"
        " --split {params.split} --shard {wildcards.shard} --shards {params.shards} --output {output} 2>&1 | tee -i {log}"


rule gather_masks:
    input:
        [f"{RESULTS}/{{boxes}}/masks_shards/{shard}-of-{SHARDS}.parquet" for shard in range(SHARDS)],
    output:
        f"{RESULTS}/{{boxes}}/detections.parquet",
    log:
        f"{LOGS}/gather_masks/{{boxes}}.log",
    benchmark:
        f"{BENCHMARKS}/gather_masks/{{boxes}}.tsv"
    wildcard_constraints:
        boxes=one_of(MASKED),
    conda:
        ENVIRONMENT
    shell:
        "python -m pipeline_steps.gather_shards --inputs {input} --output {output} 2>&1 | tee -i {log}"


rule ensemble:
    input:
        [f"{RESULTS}/ensemble/{split}/detections.parquet" for split in SPLITS],
