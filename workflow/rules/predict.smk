# Multi-scale box testing of every member, in shards.
SPLIT_FILE = {"val": DATA.lvis_val, "test": DATA.lvis_test_info}
PREDICTED = list(dict.fromkeys([*MODELS, *MEMBERS]))  # LVIS models are evaluated even when they are no members


rule predict_boxes:
    input:
        weights=lambda wildcards: model_file(wildcards.member),
        images=lambda wildcards: SPLIT_FILE[wildcards.split],
    output:
        f"{RESULTS}/predictions/{{split}}/{{member}}/boxes_shards/{{shard}}-of-{SHARDS}.parquet",
    wildcard_constraints:
        member=one_of(PREDICTED),
    params:
        settings=lambda wildcards: slices.boxes_slice(recipe, wildcards.split),
    threads: recipe.compute.threads
    resources:
        gpu=recipe.compute.inference_gpus,
        mem_mb=1000 * recipe.compute.memory_gb,
        runtime=inference_resources,
    log:
        f"{LOGS}/predict_boxes/{{split}}_{{member}}_{{shard}}-of-{SHARDS}.log",
    benchmark:
        f"{BENCHMARKS}/predict_boxes/{{split}}_{{member}}_{{shard}}-of-{SHARDS}.tsv"
    shell:
        "{STEP}.predict_boxes --recipe {RECIPE} --model {wildcards.member} --weights {input.weights}"
        " --split {wildcards.split} --shard {wildcards.shard} --shards {SHARDS} --output {output} {LOG} {log}"


rule gather_boxes:
    input:
        [
            f"{RESULTS}/predictions/{{split}}/{{member}}/boxes_shards/{shard}-of-{SHARDS}.parquet"
            for shard in range(SHARDS)
        ],
    output:
        f"{RESULTS}/predictions/{{split}}/{{member}}/boxes.parquet",
    log:
        f"{LOGS}/gather_boxes/{{split}}_{{member}}.log",
    benchmark:
        f"{BENCHMARKS}/gather_boxes/{{split}}_{{member}}.tsv"
    shell:
        "{STEP}.gather_shards --inputs {input} --output {output} {LOG} {log}"


rule predictions:
    input:
        [f"{RESULTS}/predictions/{split}/{member}/boxes.parquet" for split in SPLITS for member in PREDICTED],
