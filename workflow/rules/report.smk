# What people look at: tables, figures, pictures, and the page that shows them all.

GALLERY = ["badges", "gallery", "page", "picture"]
# Tables of what a run evaluates anyway; rows that are variants are made for their table only.
COMPARED = [name for name in TABLES if set(table_evaluations(name)) <= set(EVALUATED) and table_evaluations(name)]
MEASURED = ["analysis/measured.py", "analysis/published.py"]
TABLE_CODE = code("tabulate.py", "report/grid.py", "report/tables.py", *MEASURED)
INSPECTED = [*MODELS, "ensemble"]
# The model whose training samples are looked at: the first one that is trained with the equalization loss, if any.
SAMPLED = min(recipe.models, key=lambda model: recipe.training_of(model).loss != "eql").name


rule tabulate_summary:
    input:
        metrics=[f"{RESULTS}/evaluation/{name}/metrics.json" for name in EVALUATED],
        code=TABLE_CODE,
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
        "python -m pipeline_steps.tabulate --recipe {params.recipe:q} --metrics {params.metrics:q} --output {output.markdown:q} --csv {output.csv:q}"
        " 2>&1 | tee -i {log:q}"


rule draw_predictions:
    input:
        annotations=DATA.lvis_val,
        detections=f"{RESULTS}/ensemble/val/detections.parquet",
        code=code(
            "draw_predictions.py",
            "report/templates/*",
            "analysis/scenes.py",
            "analysis/selection.py",
            *(f"report/{name}.py" for name in GALLERY),
        ),
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
        settings=recipe.report.model_dump_json(include={"gallery_images", "gallery_score"}),
    shell:
        "python -m pipeline_steps.draw_predictions --recipe {params.recipe:q} --detections {input.detections:q} --split val"
        " --output {output.page:q} --picture {output.picture:q} 2>&1 | tee -i {log:q}"


rule count_samples:
    input:
        weights=model_file(SAMPLED),
        data=data_of_training(SAMPLED),
    output:
        counts=f"{RESULTS}/report/samples.json",
        page=report(
            f"{RESULTS}/report/missing_annotations.html",
            category="Pictures",
            caption="../report/missing_annotations.rst",
        ),
    log:
        f"{LOGS}/count_samples.log",
    benchmark:
        f"{BENCHMARKS}/count_samples.tsv"
    conda:
        ENVIRONMENT
    threads: recipe.compute.threads
    resources:
        gpu=recipe.compute.inference_gpus,
        mem_mb=1000 * recipe.compute.memory_gb,
        runtime=growing_hours(recipe.compute.inference_hours),
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
        metrics=[f"{RESULTS}/evaluation/{name}/metrics.json" for name in EVALUATED],
        categories=[f"{RESULTS}/evaluation/{name}/categories.csv" for name in EVALUATED],
        models=[model_file(name) for name in TRAINED],
        detections=f"{RESULTS}/ensemble/val/detections.parquet",
        boxes=[f"{RESULTS}/predictions/val/{member}/boxes.parquet" for member in MEMBERS],
        samples=rules.count_samples.output.counts,
        tables=[*CATEGORY_TABLES, *EXPERT_CLASSES],
        annotations=[DATA.lvis_train, DATA.lvis_val, *([DATA.openimages_summary] if USES_OPENIMAGES else [])],
        code=code("plot.py", "report/figures/*.py", "analysis/measured.py", "analysis/scenes.py"),
    output:
        report(
            directory(f"{RESULTS}/report/figures"),
            patterns=["{figure}.svg"],
            category="Figures",
            caption="../report/figure.rst",
            labels=lambda wildcards: {"figure": CAPTIONS[wildcards.figure].title},
        ),
    log:
        f"{LOGS}/plot_figures.log",
    benchmark:
        f"{BENCHMARKS}/plot_figures.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=growing(16000),
        runtime=growing(240),
    params:
        recipe=RECIPE,
        captions=CaptionTexts(),
        metrics=lambda wildcards, input: named_files(EVALUATED, input.metrics),
        categories=lambda wildcards, input: named_files(EVALUATED, input.categories),
        boxes=lambda wildcards, input: named_files(MEMBERS, input.boxes),
        training=lambda wildcards, input: named_files(
            TRAINED, [Path(file).with_name("metrics.jsonl") for file in input.models]
        ),
    shell:
        "python -m pipeline_steps.plot --recipe {params.recipe:q} --metrics {params.metrics:q}"
        " --categories {params.categories:q} --training {params.training:q} --detections {input.detections:q}"
        " --boxes {params.boxes:q} --samples {input.samples:q} --output {output:q} 2>&1 | tee -i {log:q}"


rule tabulate_table:
    input:
        metrics=lambda wildcards: [
            f"{RESULTS}/evaluation/{name}/metrics.json" for name in table_evaluations(wildcards.table)
        ],
        code=TABLE_CODE,
    output:
        markdown=report(f"{RESULTS}/report/{{table}}.md", category="Results", caption="../report/tables.rst"),
        csv=f"{RESULTS}/report/{{table}}.csv",
    log:
        f"{LOGS}/tabulate_table/{{table}}.log",
    benchmark:
        f"{BENCHMARKS}/tabulate_table/{{table}}.tsv"
    wildcard_constraints:
        table=one_of(TABLES),
    conda:
        ENVIRONMENT
    params:
        recipe=RECIPE,
        metrics=lambda wildcards, input: named_files(table_evaluations(wildcards.table), input.metrics),
    shell:
        "python -m pipeline_steps.tabulate --recipe {params.recipe:q} --table {wildcards.table:q} --metrics {params.metrics:q}"
        " --output {output.markdown:q} --csv {output.csv:q} 2>&1 | tee -i {log:q}"


for table in TABLES:

    rule:
        name:
            table
        input:
            f"{RESULTS}/report/{table}.md",


rule write_report:
    input:
        metrics=rules.plot_figures.input.metrics,
        models=rules.plot_figures.input.models,
        figures=rules.plot_figures.output,
        gallery=rules.draw_predictions.output.page,
        missing=rules.count_samples.output.page,
        code=code("write_report.py", "report/run_page/*.py", "report/templates/*", "report/figures/captions.py")
        + code("report/grid.py", "report/page.py", "report/tables.py", *MEASURED),
    output:
        report(
            f"{RESULTS}/report/index.html",
            category="Page",
            caption="../report/page.rst",
            labels={"page": "All of it on one page"},
        ),
    log:
        f"{LOGS}/write_report.log",
    benchmark:
        f"{BENCHMARKS}/write_report.tsv"
    conda:
        ENVIRONMENT
    params:
        recipe=RECIPE,
        results=lambda wildcards, output: Path(output[0]).parents[1],
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
        detections=[EVALUATED[name] for name in INSPECTED],
    log:
        f"{LOGS}/inspect.log",
    conda:
        ENVIRONMENT
    params:
        recipe=RECIPE,
        detections=lambda wildcards, input: named_files(INSPECTED, input.detections),
    shell:
        "python -m pipeline_steps.inspect_dataset --recipe {params.recipe:q} --detections {params.detections:q} 2>&1 | tee -i {log:q}"


rule report:
    input:
        rules.tabulate_summary.output,
        [f"{RESULTS}/report/{table}.{suffix}" for table in COMPARED for suffix in ("md", "csv")],
        rules.draw_predictions.output,
        rules.plot_figures.output,
        rules.write_report.output,
