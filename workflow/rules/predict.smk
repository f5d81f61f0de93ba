# Multi-scale box testing of every member, in shards.
rule predict_boxes:
    input:
        weights=lambda wildcards: RESULT.model(wildcards.member),
        images=lambda wildcards: TESTED_DATA[wildcards.split],
    output:
        RESULT.boxes_shard,
    log:
        RESULT.log("predict_boxes/{variant}{split}_{member}_{shard}"),
    benchmark:
        RESULT.benchmark("predict_boxes/{variant}{split}_{member}_{shard}")
    wildcard_constraints:
        member=one_of(names([*recipe.models, *recipe.experts])),
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
        settings=lambda wildcards: stage_settings.boxes_settings(RESULT.tested[wildcards.variant]),
    shell:
        "python -m pipeline_steps.launch --gpus {resources.gpu} --threads {threads} --one-process"
        " predict_boxes --recipe {params.recipe:q} --model {wildcards.member:q} --weights {input.weights:q}"
        " --split {wildcards.split:q} --shard {wildcards.shard:q} --shards {params.shards:q} --output {output:q} 2>&1 | tee -i {log:q}"


rule gather_boxes:
    input:
        expand(RESULT.boxes_shard, shard=range(SHARDS), allow_missing=True),
    output:
        RESULT.member_boxes,
    log:
        RESULT.log("gather_boxes/{variant}{split}_{member}"),
    benchmark:
        RESULT.benchmark("gather_boxes/{variant}{split}_{member}")
    conda:
        ENVIRONMENT
    shell:
        "python -m pipeline_steps.gather_shards --inputs {input:q} --output {output:q} 2>&1 | tee -i {log:q}"


rule predictions:
    input:
        [RESULT.member_boxes.of(split=split, member=member) for split in SPLITS for member in RESULT.predicted],
