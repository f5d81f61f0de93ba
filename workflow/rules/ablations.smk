# Settings compared over seeds: means, spread, and differences between runs of equal seed (report.ablations in the recipe).


rule compare_settings:
    input:
        metrics=[f"{RESULTS}/evaluation/{name}/metrics.json" for name in ABLATED],
        detections=[f"{RESULTS}/predictions/val/{name}/detections.parquet" for name in ABLATED],
        models=[model_file(name) for name in ABLATED],
        annotations=[DATA.lvis_train, DATA.lvis_val],
        code=code("compare_settings.py", "report/ablations/*.py", "analysis/measured.py", "analysis/published.py"),
    output:
        report(
            directory(f"{RESULTS}/report/ablations"),
            category="Ablations",
            caption="../report/ablations.rst",
            htmlindex="index.html",
        ),
    log:
        f"{LOGS}/compare_settings.log",
    benchmark:
        f"{BENCHMARKS}/compare_settings.tsv"
    conda:
        ENVIRONMENT
    params:
        recipe=RECIPE,
        settings=recipe.report.ablations.model_dump_json(),
        metrics=lambda wildcards, input: named_files(ABLATED, input.metrics),
        detections=lambda wildcards, input: named_files(ABLATED, input.detections),
        gradients=lambda wildcards, input: named_files(
            ABLATED, [Path(file).with_name("gradients.csv") for file in input.models]
        ),
        benchmarks=BENCHMARKS,
    shell:
        "python -m pipeline_steps.compare_settings --recipe {params.recipe:q} --metrics {params.metrics:q}"
        " --detections {params.detections:q} --gradients {params.gradients:q} --benchmarks {params.benchmarks:q}"
        " --output {output:q} 2>&1 | tee -i {log:q}"


rule ablations:
    input:
        rules.compare_settings.output,
