# Training: converted public weights, COCO pre-training, LVIS fine-tuning, experts. One step, three places in the recipe.


rule convert_weights:
    input:
        lambda wildcards: recipe.path(recipe.weights_entry(wildcards.name).file),
    output:
        f"{RESULTS}/weights/{{name}}.pth",
    log:
        f"{LOGS}/convert_weights/{{name}}.log",
    benchmark:
        f"{BENCHMARKS}/convert_weights/{{name}}.tsv"
    wildcard_constraints:
        name=one_of(entry.name for entry in recipe.weights),
    conda:
        ENVIRONMENT
    params:
        recipe=RECIPE,
    shell:
        "python -m pipeline_steps.convert_weights --recipe {params.recipe:q} --name {wildcards.name:q} --output {output:q} 2>&1 | tee -i {log:q}"


# --on-mismatch discard: when settings change, the workflow means the new ones; old checkpoints are then of no use.
rule pretrain_coco:
    input:
        data=training_data,
        init=initial_weights,
        detector=lambda wildcards: DETECTORS[wildcards.model],
    output:
        f"{RESULTS}/pretrain/{{model}}/model.pth",
    log:
        f"{LOGS}/pretrain_coco/{{model}}.log",
    benchmark:
        f"{BENCHMARKS}/pretrain_coco/{{model}}.tsv"
    wildcard_constraints:
        model=one_of(model.name for model in recipe.pretraining),
    conda:
        ENVIRONMENT
    threads: recipe.compute.threads * max(1, recipe.compute.training_gpus)
    resources:
        **TRAINING_PROCESSES,
        mem_mb=1000 * recipe.compute.memory_gb,
        runtime=growing_hours(recipe.compute.training_hours),
    params:
        recipe=RECIPE,
        settings=lambda wildcards: stage_settings.training_settings(recipe, wildcards.model),
        init=init_argument,
    shell:
        "python -m pipeline_steps.launch --gpus {resources.gpu} --nodes {resources.nodes} --threads {threads}"
        " train --recipe {params.recipe:q} --model {wildcards.model:q} {params.init:q} --output {output:q}"
        " --stop-before-minutes {resources.runtime} --on-mismatch discard 2>&1 | tee -i {log:q}"


use rule pretrain_coco as finetune_lvis with:
    output:
        f"{RESULTS}/finetune/{{model}}/model.pth",
    log:
        f"{LOGS}/finetune_lvis/{{model}}.log",
    benchmark:
        f"{BENCHMARKS}/finetune_lvis/{{model}}.tsv"
    wildcard_constraints:
        model=one_of(MODELS),


use rule pretrain_coco as train_expert with:
    output:
        f"{RESULTS}/experts/{{model}}/model.pth",
    log:
        f"{LOGS}/train_expert/{{model}}.log",
    benchmark:
        f"{BENCHMARKS}/train_expert/{{model}}.tsv"
    wildcard_constraints:
        model=one_of(EXPERTS),


rule pretrain:
    input:
        [model_file(model.name) for model in recipe.pretraining],


rule finetune:
    input:
        [model_file(name) for name in MODELS],


rule experts:
    input:
        [model_file(name) for name in EXPERTS],
