# Evaluation on val: mask AP of every LVIS model and of the ensemble, box AP of the experts.
TABLES = {"ensemble": f"{RESULTS}/ensemble/val/detections.parquet"}
TABLES |= {name: f"{RESULTS}/predictions/val/{name}/detections.parquet" for name in MODELS}
TABLES |= {name: f"{RESULTS}/predictions/val/{name}/boxes.parquet" for name in EXPERTS if name in MEMBERS}
EVALUATED = [*(name for name in TABLES if name != "ensemble"), "ensemble"]


def is_coco_expert(name):
    return any(expert.name == name and expert.category_table == "coco" for expert in recipe.experts)


rule evaluate_lvis:
    input:
        annotations=lambda wildcards: DATA.coco_val if is_coco_expert(wildcards.name) else DATA.lvis_val,
        detections=lambda wildcards: TABLES[wildcards.name],
    output:
        metrics=f"{RESULTS}/evaluation/{{name}}/metrics.json",
        categories=f"{RESULTS}/evaluation/{{name}}/categories.csv",
    wildcard_constraints:
        name=one_of(EVALUATED),
    params:
        iou_type=lambda wildcards: "bbox" if wildcards.name in EXPERTS else "segm",
        format=lambda wildcards: "coco" if is_coco_expert(wildcards.name) else "lvis",
        maximum=recipe.evaluation.max_detections,
        fixed=recipe.evaluation.fixed_per_category,
        evaluator=recipe.evaluation.evaluator,
    resources:
        mem_mb=8000,
        runtime=60,
    log:
        f"{LOGS}/evaluate_lvis/{{name}}.log",
    benchmark:
        f"{BENCHMARKS}/evaluate_lvis/{{name}}.tsv"
    shell:
        "{STEP}.evaluate --annotations {input.annotations} --detections {input.detections} --format {params.format}"
        " --iou-type {params.iou_type} --max-detections {params.maximum} --fixed-per-category {params.fixed}"
        " --evaluator {params.evaluator} --output {output.metrics} --per-category {output.categories} {LOG} {log}"


rule evaluation:
    input:
        [f"{RESULTS}/evaluation/{name}/metrics.json" for name in EVALUATED],
