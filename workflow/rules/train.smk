# Training: converted public weights, COCO pre-training, LVIS fine-tuning, experts. One step, three places in the recipe.


rule convert_weights:
    input:
        lambda wildcards: recipe.path(recipe.weights_entry(wildcards.name).file),
    output:
        f"{RESULTS}/weights/{{name}}.pth",
    wildcard_constraints:
        name=one_of([entry.name for entry in recipe.weights]),
    log:
        f"{LOGS}/convert_weights/{{name}}.log",
    benchmark:
        f"{BENCHMARKS}/convert_weights/{{name}}.tsv"
    shell:
        "{STEP}.convert_weights --recipe {RECIPE} --name {wildcards.name} --output {output} {LOG} {log}"


# --on-mismatch discard: when settings change, the workflow means the new ones; old checkpoints are then of no use.
TRAIN = (
    "{LAUNCH}.train --recipe {RECIPE} --model {wildcards.model} {params.init} --output {output}"
    " --stop-before-minutes {resources.runtime} --on-mismatch discard {LOG} {log}"
)
LAUNCH = (
    f"{sys.executable} -m torch.distributed.run --standalone --nproc_per_node={recipe.compute.training_gpus} -m pipeline_steps"
    if recipe.compute.training_gpus > 1
    else STEP
)


def init_argument(wildcards, input):
    return f"--init {input.init}" if input.init else ""


rule pretrain_coco:
    input:
        data=lambda wildcards: training_data(wildcards.model),
        init=lambda wildcards: initial_weights(wildcards.model),
        detector=lambda wildcards: detector_files(recipe, wildcards.model),
    output:
        f"{RESULTS}/pretrain/{{model}}/model.pth",
    wildcard_constraints:
        model=one_of([model.name for model in recipe.pretraining]),
    params:
        settings=lambda wildcards: slices.training_slice(recipe, wildcards.model),
        init=init_argument,
    threads: recipe.compute.threads
    resources:
        gpu=recipe.compute.training_gpus,
        mem_mb=1000 * recipe.compute.memory_gb,
        runtime=training_resources,
    log:
        f"{LOGS}/pretrain_coco/{{model}}.log",
    benchmark:
        f"{BENCHMARKS}/pretrain_coco/{{model}}.tsv"
    shell:
        TRAIN


use rule pretrain_coco as finetune_lvis with:
    output:
        f"{RESULTS}/finetune/{{model}}/model.pth",
    wildcard_constraints:
        model=one_of(MODELS),
    log:
        f"{LOGS}/finetune_lvis/{{model}}.log",
    benchmark:
        f"{BENCHMARKS}/finetune_lvis/{{model}}.tsv"


use rule pretrain_coco as train_expert with:
    output:
        f"{RESULTS}/experts/{{model}}/model.pth",
    wildcard_constraints:
        model=one_of(EXPERTS),
    log:
        f"{LOGS}/train_expert/{{model}}.log",
    benchmark:
        f"{BENCHMARKS}/train_expert/{{model}}.tsv"


rule pretrain:
    input:
        [model_file(model.name) for model in recipe.pretraining],


rule finetune:
    input:
        [model_file(name) for name in MODELS],


rule experts:
    input:
        [model_file(name) for name in EXPERTS],
