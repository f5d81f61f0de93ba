# Evaluation on val: mask AP of every LVIS model, of the ensemble and of variants in tables, box AP of the experts; and
# what figures show of the ensemble beside it.

ANALYSES = [f"--{name}" for name in ("pool", "errors", "calibration") if getattr(recipe.evaluation, name)]
ANALYSES += ["--bootstrap", str(recipe.evaluation.bootstrap), "--seed", str(recipe.seed)]
# Systems whose masks are compared on the same resamples of the images, each with the first one.
SYSTEMS = [*names(recipe.models), ENSEMBLE]
# Decides AP, besides the detections.
CAPS = [recipe.evaluation.max_detections, recipe.evaluation.fixed_per_category]


rule evaluate_lvis:
    input:
        annotations=lambda wildcards: DATA.coco_val if vocabulary(wildcards) == "coco" else DATA.lvis_val,
        # For the numbers of train images; the categories of COCO have none.
        train=lambda wildcards: [] if vocabulary(wildcards) == "coco" else DATA.lvis_train,
        detections=lambda wildcards: {**RESULT.evaluated, **RESULT.variants}[wildcards.name],
        parents=lambda wildcards: [] if vocabulary(wildcards) == "coco" else DATA.parents,
        tables=lambda wildcards: expert_tables(recipe, wildcards.name) if vocabulary(wildcards) == "openimages" else [],
        code=step_code("evaluate"),
    output:
        metrics=RESULT.metrics,
        categories=RESULT.categories,
    log:
        RESULT.log("evaluate_lvis/{name}"),
    benchmark:
        RESULT.benchmark("evaluate_lvis/{name}")
    wildcard_constraints:
        name=one_of([*RESULT.evaluated, *RESULT.variants]),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        train=lambda wildcards, input: ["--train-annotations", str(input.train)] if input.train else [],
        iou_type=lambda wildcards: "segm" if vocabulary(wildcards) == "lvis" else "bbox",
        format=lambda wildcards: "coco" if vocabulary(wildcards) == "coco" else "lvis",
        # An expert of another data set than COCO is evaluated in the categories that it shares with LVIS.
        expert=lambda wildcards: (
            ["--expert", wildcards.name, "--recipe", RECIPE] if vocabulary(wildcards) == "openimages" else []
        ),
        sharing=lambda wildcards: (
            stage_settings.expert_settings(recipe, wildcards.name) if vocabulary(wildcards) == "openimages" else ""
        ),
        maximum=recipe.evaluation.max_detections,
        fixed=recipe.evaluation.fixed_per_category,
        evaluator=recipe.evaluation.evaluator,
        figures=lambda wildcards: [
            "--recall" if recipe.evaluation.recall else "--no-recall",
            "--fixed-sizes" if recipe.evaluation.fixed_sizes else "--no-fixed-sizes",
            *([] if vocabulary(wildcards) != "lvis" else ["--boundary-ratio", str(recipe.evaluation.boundary_ratio)]),
        ],
        # The analyses are made in the protocol of LVIS.
        analyses=lambda wildcards, input: [*ANALYSES, "--parents", input.parents] if input.parents else [],
    shell:
        "python -m pipeline_steps.evaluate --annotations {input.annotations:q} --detections {input.detections:q} {params.train:q}"
        " --format {params.format:q} {params.expert:q}"
        " --iou-type {params.iou_type:q} --max-detections {params.maximum:q} --fixed-per-category {params.fixed:q}"
        " --evaluator {params.evaluator:q} {params.figures:q} {params.analyses:q} --output {output.metrics:q} --per-category {output.categories:q} 2>&1 | tee -i {log:q}"


rule compare_results:
    input:
        annotations=DATA.lvis_val,
        detections=[RESULT.evaluated[name] for name in SYSTEMS],
        code=step_code("compare_results"),
    output:
        RESULT.comparison,
    log:
        RESULT.log("compare_results"),
    benchmark:
        RESULT.benchmark("compare_results")
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        detections=lambda wildcards, input: name_files(SYSTEMS, input.detections),
        maximum=recipe.evaluation.max_detections,
        fixed=recipe.evaluation.fixed_per_category,
        bootstrap=recipe.evaluation.bootstrap,
        seed=recipe.seed,
    shell:
        "python -m pipeline_steps.compare_results --annotations {input.annotations:q} --detections {params.detections:q}"
        " --max-detections {params.maximum:q} --fixed-per-category {params.fixed:q} --bootstrap {params.bootstrap:q}"
        " --seed {params.seed:q} --output {output:q} 2>&1 | tee -i {log:q}"


rule measure_ensemble_gain:
    input:
        boxes=list(RESULT.members_boxes("val").values()),
        tables=DATA.category_tables,
        annotations=[DATA.lvis_train, DATA.lvis_val],
        code=step_code("measure_ensemble_gain"),
    output:
        RESULT.ensemble_gain,
    log:
        RESULT.log("measure_ensemble_gain"),
    benchmark:
        RESULT.benchmark("measure_ensemble_gain")
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        recipe=RECIPE,
        boxes=lambda wildcards, input: name_files(names(recipe.ensemble.members), input.boxes),
        settings=stage_settings.ensemble_settings(recipe, "val"),
        caps=CAPS,
    shell:
        "python -m pipeline_steps.measure_ensemble_gain --recipe {params.recipe:q} --boxes {params.boxes:q}"
        " --output {output:q} 2>&1 | tee -i {log:q}"


rule sweep_rescoring:
    input:
        detections=RESULT.ensemble("val"),
        annotations=DATA.lvis_val,
        code=step_code("sweep_rescoring"),
    output:
        RESULT.rescoring,
    log:
        RESULT.log("sweep_rescoring"),
    benchmark:
        RESULT.benchmark("sweep_rescoring")
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(8000),
        runtime=growing(60),
    params:
        recipe=RECIPE,
        caps=CAPS,
    shell:
        "python -m pipeline_steps.sweep_rescoring --recipe {params.recipe:q} --detections {input.detections:q}"
        " --output {output:q} 2>&1 | tee -i {log:q}"


rule judge_detections:
    input:
        detections=RESULT.ensemble("val"),
        annotations=DATA.lvis_val,
        code=step_code("judge_detections"),
    output:
        RESULT.scores,
    log:
        RESULT.log("judge_detections"),
    benchmark:
        RESULT.benchmark("judge_detections")
    conda:
        ENVIRONMENT
    params:
        recipe=RECIPE,
    shell:
        "python -m pipeline_steps.judge_detections --recipe {params.recipe:q} --detections {input.detections:q}"
        " --output {output:q} 2>&1 | tee -i {log:q}"


rule evaluation:
    input:
        [RESULT.metrics.of(name=name) for name in recipe.evaluations],
