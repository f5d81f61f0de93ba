# The submission: written, then validated as the server would.


rule write_submission:
    input:
        annotations=DATA.lvis_test_info,
        detections=f"{RESULTS}/ensemble/test/detections.parquet",
    output:
        json=f"{RESULTS}/submission/submission.json",
        zip=f"{RESULTS}/submission/submission.zip",
    params:
        maximum=recipe.evaluation.max_detections,
    resources:
        mem_mb=4000,
        runtime=120,
    log:
        f"{LOGS}/write_submission.log",
    benchmark:
        f"{BENCHMARKS}/write_submission.tsv"
    shell:
        "({STEP}.write_submission --annotations {input.annotations} --detections {input.detections}"
        " --max-detections {params.maximum} --output {output.json} --zip {output.zip} &&"
        " {STEP}.write_submission --check {output.json} --annotations {input.annotations}"
        " --max-detections {params.maximum}) {LOG} {log}"


rule submission:
    input:
        rules.write_submission.output,
