# What people look at: the summary table, figures, a page of pictures.


rule tabulate_summary:
    input:
        metrics=[f"{RESULTS}/evaluation/{name}/metrics.json" for name in EVALUATED],
    output:
        markdown=report(f"{RESULTS}/report/summary.md", category="Results", caption="../report/summary.rst"),
        csv=f"{RESULTS}/report/summary.csv",
    params:
        metrics=lambda wildcards, input: " ".join(f"{name}={file}" for name, file in zip(EVALUATED, input.metrics)),
    log:
        f"{LOGS}/tabulate_summary.log",
    benchmark:
        f"{BENCHMARKS}/tabulate_summary.tsv"
    shell:
        "{STEP}.tabulate --recipe {RECIPE} --metrics {params.metrics} --output {output.markdown} --csv {output.csv}"
        " {LOG} {log}"


rule draw_predictions:
    input:
        annotations=DATA.lvis_val,
        detections=f"{RESULTS}/ensemble/val/detections.parquet",
    output:
        page=report(f"{RESULTS}/report/gallery.html", category="Pictures", caption="../report/gallery.rst"),
        picture=f"{RESULTS}/report/gallery.png",
    params:
        settings=recipe.report.model_dump_json(),
    log:
        f"{LOGS}/draw_predictions.log",
    benchmark:
        f"{BENCHMARKS}/draw_predictions.tsv"
    shell:
        "{STEP}.draw_predictions --recipe {RECIPE} --detections {input.detections} --split val"
        " --output {output.page} --picture {output.picture} {LOG} {log}"


rule report:
    input:
        rules.tabulate_summary.output,
        rules.draw_predictions.output,
