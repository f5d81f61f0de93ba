# What people look at: the summary table, figures, a page of pictures.


rule tabulate_summary:
    input:
        metrics=[f"{RESULTS}/evaluation/{name}/metrics.json" for name in EVALUATED],
    output:
        markdown=report(
            f"{RESULTS}/report/summary.md",
            category="Results",
            caption="../report/summary.rst",
        ),
        csv=f"{RESULTS}/report/summary.csv",
    log:
        f"{LOGS}/tabulate_summary.log",
    benchmark:
        f"{BENCHMARKS}/tabulate_summary.tsv"
    conda:
        ENVIRONMENT
    params:
        recipe=RECIPE,
        metrics=lambda wildcards, input: named_files(EVALUATED, input.metrics),
    shell:
        "python -m pipeline_steps.tabulate --recipe {params.recipe} --metrics {params.metrics} --output {output.markdown} --csv {output.csv}"
        " 2>&1 | tee -i {log}"


rule draw_predictions:
    input:
        annotations=DATA.lvis_val,
        detections=f"{RESULTS}/ensemble/val/detections.parquet",
    output:
        page=report(
            f"{RESULTS}/report/gallery.html",
            category="Pictures",
            caption="../report/gallery.rst",
        ),
        picture=f"{RESULTS}/report/gallery.png",
    log:
        f"{LOGS}/draw_predictions.log",
    benchmark:
        f"{BENCHMARKS}/draw_predictions.tsv"
    conda:
        ENVIRONMENT
    params:
        recipe=RECIPE,
        settings=recipe.report.model_dump_json(),
    shell:
        "python -m pipeline_steps.draw_predictions --recipe {params.recipe} --detections {input.detections} --split val"
        " --output {output.page} --picture {output.picture} 2>&1 | tee -i {log}"


rule report:
    input:
        rules.tabulate_summary.output,
        rules.draw_predictions.output,
