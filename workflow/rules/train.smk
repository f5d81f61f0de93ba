# Training: converted public weights, COCO pre-training, LVIS fine-tuning, experts. One step, three places in the recipe.


rule convert_weights:
    input:
        lambda wildcards: recipe.path(recipe.weights_entry(wildcards.name).file),
    output:
        RESULT.weights,
    log:
        RESULT.log("convert_weights/{name}"),
    benchmark:
        RESULT.benchmark("convert_weights/{name}")
    wildcard_constraints:
        name=one_of(names(recipe.weights)),
    conda:
        ENVIRONMENT
    params:
        recipe=RECIPE,
    shell:
        "python -m pipeline_steps.convert_weights --recipe {params.recipe:q} --name {wildcards.name:q} --output {output:q} 2>&1 | tee -i {log:q}"


# --on-mismatch discard: when settings change, the workflow means the new ones; old checkpoints are then of no use.
rule pretrain_coco:
    input:
        data=lambda wildcards: DATA.for_training(wildcards.model),
        init=lambda wildcards: RESULT.initial_weights(wildcards.model),
        detector=lambda wildcards: DETECTORS[wildcards.model],
    output:
        RESULT.training["pretrain"],
    log:
        RESULT.log("pretrain_coco/{model}"),
    benchmark:
        RESULT.benchmark("pretrain_coco/{model}")
    wildcard_constraints:
        model=one_of(names(recipe.pretraining)),
    conda:
        ENVIRONMENT
    threads: recipe.compute.threads * max(1, recipe.compute.training_gpus)
    resources:
        **processes(recipe.compute.training_gpus, recipe.compute.training_nodes),
        mem_mb=1000 * recipe.compute.memory_gb,
        runtime=growing_hours(recipe.compute.training_hours, recipe.compute.longest_hours),
    params:
        recipe=RECIPE,
        settings=lambda wildcards: stage_settings.training_settings(recipe, wildcards.model),
        init=lambda wildcards, input: ["--init", *input.init] if input.init else [],
    shell:
        "python -m pipeline_steps.launch --gpus {resources.gpu} --nodes {resources.nodes} --threads {threads}"
        " train --recipe {params.recipe:q} --model {wildcards.model:q} {params.init:q} --output {output:q}"
        " --stop-before-minutes {resources.runtime} --on-mismatch discard 2>&1 | tee -i {log:q}"


use rule pretrain_coco as finetune_lvis with:
    output:
        RESULT.training["finetune"],
    log:
        RESULT.log("finetune_lvis/{model}"),
    benchmark:
        RESULT.benchmark("finetune_lvis/{model}")
    wildcard_constraints:
        model=one_of(names(recipe.models)),


use rule pretrain_coco as train_expert with:
    output:
        RESULT.training["experts"],
    log:
        RESULT.log("train_expert/{model}"),
    benchmark:
        RESULT.benchmark("train_expert/{model}")
    wildcard_constraints:
        model=one_of(names(recipe.experts)),


rule pretrain:
    input:
        [RESULT.model(name) for name in names(recipe.pretraining)],


rule finetune:
    input:
        [RESULT.model(name) for name in names(recipe.models)],


rule experts:
    input:
        [RESULT.model(name) for name in names(recipe.experts)],
