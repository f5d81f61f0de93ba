# The submission: written, then validated as the server would.


rule write_submission:
    input:
        annotations=DATA.lvis_test_info,
        detections=RESULT.ensemble("test"),
        code=step_code("write_submission"),
    output:
        json=RESULT.submission,
        zip=RESULT.submission_zip,
    log:
        RESULT.log("write_submission"),
    benchmark:
        RESULT.benchmark("write_submission")
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(4000),
        runtime=growing(120),
    params:
        maximum=recipe.evaluation.max_detections,
    shell:
        "(python -m pipeline_steps.write_submission --annotations {input.annotations:q} --detections {input.detections:q}"
        " --max-detections {params.maximum:q} --output {output.json:q} --zip {output.zip:q} &&"
        " python -m pipeline_steps.write_submission --check {output.json:q} --annotations {input.annotations:q}"
        " --max-detections {params.maximum:q}) 2>&1 | tee -i {log:q}"


rule submission:
    input:
        rules.write_submission.output,
