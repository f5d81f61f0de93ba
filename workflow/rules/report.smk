# What people look at: tables, figures, pictures, and the page that shows them all.

# Tables of what a run evaluates anyway; rows that are variants are made for their table only.
COMPARED = [name for name in TABLES if set(RESULT.table_evaluations(name) or [""]) <= set(recipe.evaluations)]
INSPECTED = [*names(recipe.models), ENSEMBLE]
# The model whose training samples are looked at: the first one that is trained with the equalization loss, if any.
SAMPLED = min(recipe.models, key=lambda model: recipe.training_of(model).loss != "eql").name


rule tabulate_summary:
    input:
        metrics=[RESULT.metrics.of(name=name) for name in recipe.evaluations],
        code=step_code("tabulate"),
    output:
        markdown=report(
            RESULT.summary,
            category="Results",
            caption="../report/summary.rst",
        ),
        csv=RESULT.summary_csv,
    log:
        RESULT.log("tabulate_summary"),
    benchmark:
        RESULT.benchmark("tabulate_summary")
    conda:
        ENVIRONMENT
    params:
        recipe=RECIPE,
        metrics=lambda wildcards, input: name_files(recipe.evaluations, input.metrics),
    shell:
        "python -m pipeline_steps.tabulate --recipe {params.recipe:q} --metrics {params.metrics:q} --output {output.markdown:q} --csv {output.csv:q}"
        " 2>&1 | tee -i {log:q}"


rule draw_predictions:
    input:
        annotations=DATA.lvis_val,
        detections=RESULT.ensemble("val"),
        code=step_code("draw_predictions"),
    output:
        page=report(
            RESULT.gallery,
            category="Pictures",
            caption="../report/gallery.rst",
        ),
        picture=RESULT.gallery_picture,
    log:
        RESULT.log("draw_predictions"),
    benchmark:
        RESULT.benchmark("draw_predictions")
    conda:
        ENVIRONMENT
    params:
        recipe=RECIPE,
        settings=recipe.report.model_dump_json(include={"gallery_images", "gallery_score"}),
    shell:
        "python -m pipeline_steps.draw_predictions --recipe {params.recipe:q} --detections {input.detections:q} --split val"
        " --output {output.page:q} --picture {output.picture:q} 2>&1 | tee -i {log:q}"


rule count_samples:
    input:
        weights=RESULT.model(SAMPLED),
        data=DATA.for_training(SAMPLED),
    output:
        counts=RESULT.samples,
        page=report(
            RESULT.missing_annotations,
            category="Pictures",
            caption="../report/missing_annotations.rst",
        ),
    log:
        RESULT.log("count_samples"),
    benchmark:
        RESULT.benchmark("count_samples")
    conda:
        ENVIRONMENT
    threads: recipe.compute.threads
    resources:
        gpu=recipe.compute.inference_gpus,
        mem_mb=1000 * recipe.compute.memory_gb,
        runtime=INFERENCE_TIME,
    params:
        recipe=RECIPE,
        model=SAMPLED,
        images=recipe.report.sample_images,
        settings=stage_settings.training_settings(recipe, SAMPLED),
    shell:
        "python -m pipeline_steps.launch --gpus {resources.gpu} --threads {threads} --one-process"
        " count_samples --recipe {params.recipe:q} --model {params.model:q} --weights {input.weights:q}"
        " --images {params.images:q} --output {output.counts:q} --page {output.page:q} 2>&1 | tee -i {log:q}"


rule plot_figures:
    input:
        metrics=[RESULT.metrics.of(name=name) for name in recipe.evaluations],
        categories=[RESULT.categories.of(name=name) for name in recipe.evaluations],
        models=[RESULT.model(name) for name in RESULT.trained],
        gain=rules.measure_ensemble_gain.output if len(recipe.ensemble.members) > 1 else [],
        rescoring=rules.sweep_rescoring.output,
        scores=rules.judge_detections.output,
        samples=rules.count_samples.output.counts,
        annotations=[
            DATA.lvis_train,
            *([DATA.openimages_summary] if recipe.data.openimages.enabled else []),
        ],
        code=step_code("plot"),
    output:
        report(
            directory(RESULT.figures),
            patterns=["{figure}.svg"],
            category="Figures",
            caption="../report/figure.rst",
            labels=lambda wildcards: {"figure": CAPTIONS[wildcards.figure].title},
        ),
    log:
        RESULT.log("plot_figures"),
    benchmark:
        RESULT.benchmark("plot_figures")
    conda:
        ENVIRONMENT
    params:
        recipe=RECIPE,
        captions=CaptionTexts(),
        metrics=lambda wildcards, input: name_files(recipe.evaluations, input.metrics),
        categories=lambda wildcards, input: name_files(recipe.evaluations, input.categories),
        gain=lambda wildcards, input: ["--ensemble-gain", *input.gain] if input.gain else [],
        training=lambda wildcards, input: name_files(
            RESULT.trained, [RESULT.beside_model(name, METRICS_FILE) for name in RESULT.trained]
        ),
    shell:
        "python -m pipeline_steps.plot --recipe {params.recipe:q} --metrics {params.metrics:q}"
        " --categories {params.categories:q} --training {params.training:q} {params.gain:q} --rescoring {input.rescoring:q}"
        " --scores {input.scores:q} --samples {input.samples:q} --output {output:q} 2>&1 | tee -i {log:q}"


rule tabulate_table:
    input:
        metrics=lambda wildcards: [RESULT.metrics.of(name=name) for name in RESULT.table_evaluations(wildcards.table)],
        code=step_code("tabulate"),
    output:
        markdown=report(RESULT.table, category="Results", caption="../report/tables.rst"),
        csv=RESULT.table_csv,
    log:
        RESULT.log("tabulate_table/{table}"),
    benchmark:
        RESULT.benchmark("tabulate_table/{table}")
    wildcard_constraints:
        table=one_of(TABLES),
    conda:
        ENVIRONMENT
    params:
        recipe=RECIPE,
        metrics=lambda wildcards, input: name_files(RESULT.table_evaluations(wildcards.table), input.metrics),
    shell:
        "python -m pipeline_steps.tabulate --recipe {params.recipe:q} --table {wildcards.table:q} --metrics {params.metrics:q}"
        " --output {output.markdown:q} --csv {output.csv:q} 2>&1 | tee -i {log:q}"


for table in TABLES:

    rule:
        name:
            table
        input:
            RESULT.table.of(table=table),


rule write_report:
    input:
        metrics=rules.plot_figures.input.metrics,
        models=rules.plot_figures.input.models,
        comparison=rules.compare_results.output if recipe.evaluation.bootstrap else [],
        # Confusions are drawn.
        annotations=DATA.lvis_val,
        detections=RESULT.ensemble("val"),
        figures=rules.plot_figures.output,
        gallery=rules.draw_predictions.output.page,
        missing=rules.count_samples.output.page,
        code=step_code("write_report"),
    output:
        report(
            RESULT.page,
            category="Page",
            caption="../report/page.rst",
            labels={"page": "All of it on one page"},
        ),
    log:
        RESULT.log("write_report"),
    benchmark:
        RESULT.benchmark("write_report")
    conda:
        ENVIRONMENT
    params:
        recipe=RECIPE,
        results=lambda wildcards, output: RESULT.root,
        tables=recipe.report.tables,
    shell:
        "python -m pipeline_steps.write_report --recipe {params.recipe:q} --results {params.results:q} --figures {input.figures:q}"
        " --output {output:q} 2>&1 | tee -i {log:q}"


# Not part of `all`: puts the run on val into a FiftyOne database, which its app shows. It starts a database of its own
# unless FIFTYONE_DATABASE_URI names one, so it runs where the command was given, not on the cluster.
localrules:
    inspect,


rule inspect:
    input:
        annotations=DATA.lvis_val,
        detections=[RESULT.evaluated[name] for name in INSPECTED],
    log:
        RESULT.log("inspect"),
    conda:
        ENVIRONMENT
    params:
        recipe=RECIPE,
        detections=lambda wildcards, input: name_files(INSPECTED, input.detections),
    shell:
        "python -m pipeline_steps.inspect_dataset --recipe {params.recipe:q} --detections {params.detections:q} 2>&1 | tee -i {log:q}"


rule report:
    input:
        rules.tabulate_summary.output,
        [file.of(table=table) for table in COMPARED for file in (RESULT.table, RESULT.table_csv)],
        rules.draw_predictions.output,
        rules.plot_figures.output,
        rules.write_report.output,
