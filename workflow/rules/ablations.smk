# Settings compared over seeds: means, spread, and differences between runs of equal seed (report.ablations in the recipe).


rule compute_ablations:
    input:
        metrics=[RESULT.metrics.of(name=name) for name in RESULT.compared],
        detections=[RESULT.evaluated[name] for name in RESULT.compared],
        models=[RESULT.model(name) for name in RESULT.compared],
        annotations=[DATA.lvis_train, DATA.lvis_val],
        code=step_code("compute_ablations"),
    output:
        RESULT.ablations_file,
    log:
        RESULT.log("compute_ablations"),
    benchmark:
        RESULT.benchmark("compute_ablations")
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(8000),
        runtime=growing(120),
    params:
        recipe=RECIPE,
        settings=recipe.report.ablations.model_dump_json(),
        metrics=lambda wildcards, input: name_files(RESULT.compared, input.metrics),
        detections=lambda wildcards, input: name_files(RESULT.compared, input.detections),
        gradients=lambda wildcards, input: name_files(
            RESULT.compared, [RESULT.beside_model(name, GRADIENTS_FILE) for name in RESULT.compared]
        ),
        benchmarks=str(RESULT.benchmarks),
    shell:
        "python -m pipeline_steps.compute_ablations --recipe {params.recipe:q} --metrics {params.metrics:q}"
        " --detections {params.detections:q} --gradients {params.gradients:q} --benchmarks {params.benchmarks:q}"
        " --output {output:q} 2>&1 | tee -i {log:q}"


rule compare_settings:
    input:
        ablations=rules.compute_ablations.output,
        code=step_code("compare_settings"),
    output:
        report(
            directory(RESULT.ablations),
            category="Ablations",
            caption="../report/ablations.rst",
            htmlindex="index.html",
        ),
    log:
        RESULT.log("compare_settings"),
    benchmark:
        RESULT.benchmark("compare_settings")
    conda:
        ENVIRONMENT
    params:
        recipe=RECIPE,
        settings=recipe.report.ablations.model_dump_json(),
    shell:
        "python -m pipeline_steps.compare_settings --recipe {params.recipe:q} --ablations {input.ablations:q}"
        " --output {output:q} 2>&1 | tee -i {log:q}"


rule ablations:
    input:
        rules.compare_settings.output,
