# Re-scored ensemble of members and experts, then multi-scale masks for the merged boxes.


rule rescore_ensemble:
    input:
        categories=DATA.lvis_train,
        tables=[recipe.path(recipe.data.coco_to_lvis), recipe.path(recipe.data.openimages_to_lvis)],
        detections=[f"{RESULTS}/predictions/{{split}}/{member}/boxes.parquet" for member in MEMBERS],
    output:
        f"{RESULTS}/ensemble/{{split}}/boxes.parquet",
    params:
        settings=lambda wildcards: slices.ensemble_slice(recipe, wildcards.split),
        detections=lambda wildcards, input: " ".join(
            f"{member}={file}" for member, file in zip(MEMBERS, input.detections)
        ),
    resources:
        mem_mb=8000,
        runtime=60,
    log:
        f"{LOGS}/rescore_ensemble/{{split}}.log",
    benchmark:
        f"{BENCHMARKS}/rescore_ensemble/{{split}}.tsv"
    shell:
        "{STEP}.rescore_ensemble --recipe {RECIPE} --categories {input.categories} --split {wildcards.split}"
        " --detections {params.detections} --output {output} {LOG} {log}"


def mask_weights(wildcards):
    """Models that predict the masks of ``wildcards.boxes``: a model its own, all mask models those of the ensemble."""
    owner = wildcards.boxes.rsplit("/", 1)[-1]
    return [model_file(name) for name in ([owner] if owner in MODELS else recipe.mask_models())]


def split_of(wildcards):
    return wildcards.boxes.split("/")[1]


MASKED = one_of([*(f"predictions/val/{name}" for name in MODELS), *(f"ensemble/{split}" for split in SPLITS)])


rule predict_masks:
    input:
        boxes=f"{RESULTS}/{{boxes}}/boxes.parquet",
        weights=mask_weights,
        images=lambda wildcards: SPLIT_FILE[split_of(wildcards)],
    output:
        f"{RESULTS}/{{boxes}}/masks_shards/{{shard}}-of-{SHARDS}.parquet",
    wildcard_constraints:
        boxes=MASKED,
    params:
        settings=slices.masks_slice(recipe),
        split=lambda wildcards: split_of(wildcards),
        weights=lambda wildcards, input: " ".join(f"{Path(file).parent.name}={file}" for file in input.weights),
    threads: recipe.compute.threads
    resources:
        gpu=recipe.compute.inference_gpus,
        mem_mb=1000 * recipe.compute.memory_gb,
        runtime=inference_resources,
    log:
        f"{LOGS}/predict_masks/{{boxes}}_{{shard}}-of-{SHARDS}.log",
    benchmark:
        f"{BENCHMARKS}/predict_masks/{{boxes}}_{{shard}}-of-{SHARDS}.tsv"
    shell:
        "{STEP}.predict_masks --recipe {RECIPE} --weights {params.weights} --boxes {input.boxes}"
        " --split {params.split} --shard {wildcards.shard} --shards {SHARDS} --output {output} {LOG} {log}"


rule gather_masks:
    input:
        [f"{RESULTS}/{{boxes}}/masks_shards/{shard}-of-{SHARDS}.parquet" for shard in range(SHARDS)],
    output:
        f"{RESULTS}/{{boxes}}/detections.parquet",
    wildcard_constraints:
        boxes=MASKED,
    log:
        f"{LOGS}/gather_masks/{{boxes}}.log",
    benchmark:
        f"{BENCHMARKS}/gather_masks/{{boxes}}.tsv"
    shell:
        "{STEP}.gather_shards --inputs {input} --output {output} {LOG} {log}"


rule ensemble:
    input:
        [f"{RESULTS}/ensemble/{split}/detections.parquet" for split in SPLITS],
