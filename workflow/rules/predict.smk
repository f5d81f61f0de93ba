# Multi-scale box testing of every member, in shards.
rule predict_boxes:
    input:
        weights=lambda wildcards: model_file(wildcards.member),
        images=lambda wildcards: SPLIT_FILES[wildcards.split],
    output:
        f"{RESULTS}/{{variant}}predictions/{{split}}/{{member}}/boxes_shards/{{shard}}-of-{SHARDS}.parquet",
    log:
        f"{LOGS}/predict_boxes/{{variant}}{{split}}_{{member}}_{{shard}}-of-{SHARDS}.log",
    benchmark:
        f"{BENCHMARKS}/predict_boxes/{{variant}}{{split}}_{{member}}_{{shard}}-of-{SHARDS}.tsv"
    wildcard_constraints:
        member=one_of([*MODELS, *EXPERTS]),
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
        settings=lambda wildcards: stage_settings.boxes_settings(TESTED[wildcards.variant]),
    shell:
        "python -m pipeline_steps.launch --gpus {resources.gpu} --threads {threads} --one-process"
        " predict_boxes --recipe {params.recipe:q} --model {wildcards.member:q} --weights {input.weights:q}"
        " --split {wildcards.split:q} --shard {wildcards.shard:q} --shards {params.shards:q} --output {output:q} 2>&1 | tee -i {log:q}"


rule gather_boxes:
    input:
        [
            f"{RESULTS}/{{variant}}predictions/{{split}}/{{member}}/boxes_shards/{shard}-of-{SHARDS}.parquet"
            for shard in range(SHARDS)
        ],
    output:
        f"{RESULTS}/{{variant}}predictions/{{split}}/{{member}}/boxes.parquet",
    log:
        f"{LOGS}/gather_boxes/{{variant}}{{split}}_{{member}}.log",
    benchmark:
        f"{BENCHMARKS}/gather_boxes/{{variant}}{{split}}_{{member}}.tsv"
    conda:
        ENVIRONMENT
    shell:
        "python -m pipeline_steps.gather_shards --inputs {input:q} --output {output:q} 2>&1 | tee -i {log:q}"


rule predictions:
    input:
        [f"{RESULTS}/predictions/{split}/{member}/boxes.parquet" for split in SPLITS for member in PREDICTED],
