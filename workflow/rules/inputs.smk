"""Input functions of the stages, and the checks of the configuration before a stage is planned."""

# The needs of a target are checked when its jobs are planned and not before, because figures of the data need nothing
# to train on. Each check is made once.


@refusing
def require_training():
    """Refuse the configuration unless there is something to train on."""
    check_training(config)
    for name in training_collections(config) if SCANS else ():
        check_rows(name, SCANS[name], config)


@refusing
def require_model():
    """Refuse the configuration unless there is a model to predict with or one can be trained."""
    if config["model"]["path"]:
        check_model(config)
    else:
        require_training()


@refusing
def require_packing():
    """Refuse the configuration unless its model can be packed."""
    check_packing(config)


@refusing
def require_package(format):
    """Refuse an export whose package is not here, unless its jobs have an environment of their own."""
    own = workflow.deployment_settings.deployment_method
    if workflow.is_main_process and not own and find_spec(EXPORTERS[format]) is None:
        refuse(
            f"export_{format}: the package {EXPORTERS[format]} is not in this environment; run with --sdm conda, or "
            f"install what envs/{format}.yaml lists"
        )


@refusing
def require_columns():
    """Refuse the configuration unless the sheets have the columns by which calls are pooled."""
    check_pooling(config, SCANS)


@refusing
def require_unseen():
    """Refuse the configuration if the sheets say that training sees all that would be scored."""
    if SCANS and not config["model"]["path"]:
        check_unseen(config, SCANS, SCORED)


@refusing
def require_segmentation(collection):
    """Refuse the configuration unless it allows the segmentation of a collection."""
    check_segmentation(config, collection)


@refusing
def atlas_files(wildcards):
    """Return the sheets and counts of the atlas, after the check that a collection has them."""
    parts = sorted({collection["atlas"] for collection in COLLECTIONS.values() if "atlas" in collection})
    if not parts:
        refuse("config key collections: no collection has the key atlas; see config/atlas-small.yaml")
    return [f"{ATLAS_FOLDER}/summary.json", *(f"{ATLAS_FOLDER}/{part}.csv" for part in parts)]


def of_shards(kind, *collections):
    """Return the files of a kind (PATTERNS of hpaloc/layout.py) of every shard of collections that holds fields."""
    found = [expand(PATTERNS[kind], collection=name, shard=SHARDS[name], colour=COLOURS) for name in collections]
    return [path for of_collection in found for path in of_collection]


def first_shard(kind):
    """Return the input function of the file of a kind of the first shard of a collection."""
    return lambda wildcards: of_shards(kind, wildcards.collection)[0]


@refusing
def content_of(*paths):
    """Return the digests of files that people name, a parameter of the rules that read them.

    They are not inputs, because Snakemake compares the time of an input, even of an `ancient` one after the job has
    ended. It considers a job failed, with all its outputs, if the date of an input is in the future. And it would not
    detect an older file in place of a newer one.
    """
    found = [spelled_as_on_disk(str(path)) for path in paths]
    return [digest(path) if Path(path).is_file() else None for path in found]


def other_columns(wildcards):
    """Return the table of the columns of a collection's sheet that hpaloc does not use, if it has any."""
    return table_of("columns", wildcards.collection)


def fields_to_pool(wildcards):
    """Return the table of fields, after the check that it has the columns by which calls are pooled."""
    require_columns()
    return f"results/predictions/{wildcards.collection}/fields.parquet"


def table_of(kind, collection):
    """Return a table that planning writes only for some collections, if it has written it for this one."""
    return [path for path in expand(PATTERNS[kind], collection=collection) if Path(path).is_file()]


@cache
def imports(collection):
    """Return whether files of a collection are imported, as the head of each of its manifests says."""
    for path in of_shards("manifest", collection)[:1]:
        with open(path) as manifest:
            return "_source" in manifest.readline()
    return False


def made(collection, shard):
    """Return what must exist before a shard's files can be read: nothing if the files existed before the run."""
    if "simulate" in COLLECTIONS[collection]:
        return expand(PATTERNS["simulated"], collection=collection, shard=shard)
    if "download" in COLLECTIONS[collection]:
        return expand(PATTERNS["downloaded"], collection=collection, shard=shard)
    if imports(collection):
        return expand(PATTERNS["imported"], collection=collection, shard=shard)
    return []


def made_images(wildcards):
    """Return what must exist before a shard's channel files can be read."""
    return made(wildcards.collection, wildcards.shard)


def to_segment(wildcards):
    """Return what must exist before a shard can be segmented."""
    require_segmentation(wildcards.collection)
    return made_images(wildcards)


def tiles_params(wildcards):
    """Return, as a parameter, how the tiles of a collection are made."""
    return config["tiles"] | ({"enlarge": False} if wildcards.collection in CROPS else {})


def simulated_shards(collection):
    """Return the folders of a collection's simulated files where it is simulated."""
    return of_shards("simulated", collection) if "simulate" in COLLECTIONS[collection] else []


def numbers_of(collection):
    """Return, as a parameter, whether numbers in a collection's tables are those of 2018: empty if they are not."""
    return {"of_2018": True} if COLLECTIONS[collection]["labels"] == "hpa2018" else {}


def files_of(collection):
    """Return what CollectionFiles takes of a collection and its true cells, as a parameter that Snakemake compares."""
    files = {"name": collection, "shards": SHARDS[collection]}
    if "simulate" in COLLECTIONS[collection]:
        # Their table of true cells is hpaloc's own.
        folder = PATTERNS["simulated"].replace("{collection}", collection)
        cells = [f"{of_shard}/cells.csv" for of_shard in simulated_shards(collection)]
        return files | {"true_cells": cells, "true_masks": f"{folder}/{{id}}_cellmask.png"}
    if found := COLLECTIONS[collection].get("truth"):
        cells, masks = (found[key].replace("{root}", COLLECTIONS[collection]["root"]) for key in ("cells", "masks"))
        files |= {"true_cells": [cells], "true_masks": masks, "true_states": truth_files(collection)[0]}
        return files | numbers_of(collection)
    return files


def true_content(*collections):
    """Return the content of the tables of true cells that people name."""
    named = [name for name in collections if "truth" in COLLECTIONS[name]]
    return {name: content_of(*files_of(name)["true_cells"]) for name in named}


def truth_files(collection):
    """Return what must be there before a collection's truth can be read; its tables are in the parameters, by content."""
    if "truth" in COLLECTIONS[collection]:
        return expand(PATTERNS["true_states"], collection=collection)
    return simulated_shards(collection)


def explore_outputs():
    """Return the figures of the data."""
    return expand("results/figures/{name}.{suffix}", name=EXPLORE_FIGURES, suffix=["svg", "png"])


def model_outputs(wildcards):
    """Return the card of the model, what it has seen and the curves of its training if this run trains it."""
    if config["model"]["path"]:
        return []
    names = ["card.md", *SEEN_FILES, *BASELINE_FILES]
    return expand("results/model/{name}", name=names) + expand(
        "results/figures/{name}.{suffix}", name=TRAINING_FIGURES, suffix=["svg", "png"]
    )


def to_curate(collection):
    """Return the input function of the curation of a collection."""

    def inputs(wildcards):
        require_training()
        return {
            **{kind: of_shards(kind, collection) for kind in ("cells", "fields", "annotations")},
            "groups": table_of("groups", collection),
            "truth": truth_files(collection) if labelled_by_truth(collection) else [],
        }

    return inputs


def labelled_by_truth(collection):
    """Return whether the cells of a collection that trains get their labels from the truth per cell."""
    return curation_of(config, collection)[1]["labels"] == "cells"


def curation_params(collection):
    """Return the parameters of the curation of a collection."""
    by_truth = labelled_by_truth(collection)
    return {
        "curation": curation_of(config, collection)[1],
        "one_location": config["train"]["head"] == "softmax",
        "true_cells": lambda wildcards: files_of(collection) if by_truth else None,
        "true_content": lambda wildcards: true_content(collection) if by_truth else None,
        "seed": config["seed"],
    }


def tables_that_train(wildcards):
    """Return the tables of cells and fields, and the other columns of the sheets, of the collections that train."""
    require_training()
    names = training_collections(config)
    return {
        "tables": [
            path for name in names for kind in ("cells", "fields", "annotations") for path in of_shards(kind, name)
        ],
        "columns": [path for name in names for path in table_of("columns", name)],
    }


def tiles_of(collection):
    """Return the input function of the tiles of a collection, colour by colour within each shard."""

    def inputs(wildcards):
        require_training()
        return of_shards("tiles", collection)

    return inputs


def trained_here(*names, folder=MODEL):
    """Return files of a model folder if this run trains it; none of a model that model.path names."""
    return [] if config["model"]["path"] else [f"{folder}/{name}" for name in names]


def model_files(wildcards):
    """Return the files of the model that predicts if this run trains it; a model of model.path is only checked."""
    require_model()
    return trained_here(*MODEL_FILES)


def reading_files(wildcards):
    """Return the files of the reading of mixtures if this run trains the model and the model reads mixtures."""
    return trained_here(*READING_FILES) if config["train"]["blends"] else []


def fusion_files(wildcards):
    """Return the files of the fusion if this run trains the model and fuses it with its regression."""
    return trained_here(*FUSION_FILES) if config["train"]["fusion"] > 0 else []


def given_model_has(name):
    """Return whether the model that model.path names has a file; a packed one is fetched and unpacked to know it."""
    require_model()
    return Path(MODEL, name).is_file()


def has_baselines():
    """Return whether the model has learned baselines."""
    return not config["model"]["path"] or given_model_has("baselines.json")


def is_fused(wildcards):
    """Return whether the network is fused with its regression."""
    return given_model_has("fusion.json") if config["model"]["path"] else config["train"]["fusion"] > 0


def measures_to_fuse(collection, shard):
    """Return the measured cells of a shard if the network is fused with its regression."""
    return expand(PATTERNS["baselines"], collection=collection, shard=shard) if is_fused(None) else []


def measures_to_compare(wildcards):
    """Return the measured cells of the collections that are scored if the model has learned baselines."""
    return of_shards("baselines", *SCORED) if SCORED and has_baselines() else []


def measured_collections():
    """Return the names of the collections whose cells are measured, for the baselines or the fusion."""
    if not has_baselines():
        return []
    return [*(PREDICTED if is_fused(None) else SCORED), *([] if config["model"]["path"] else [TRAINING])]


def version_of_model(*names):
    """Return the parameter function of the digests of files of the model that model.path names.

    It is None if this run trains the model; the digest of a file that the model lacks is None.
    """

    def version(wildcards):
        if not config["model"]["path"]:
            return None
        require_model()
        return content_of(*(f"{MODEL}/{name}" for name in names))

    return version


model_version = version_of_model(*MODEL_FILES, *READING_FILES, *FUSION_FILES)


@refusing
def tiles_of_model():
    """Return the colours and the input size, in px, that the network takes."""
    if not config["model"]["path"]:
        return {key: config["train"][key] for key in ("channels", "input_size")}
    require_model()
    made, _ = read_settings(Path(MODEL))
    return {key: made[key] for key in ("channels", "input_size")}


def model_to_pack(wildcards):
    """Return the files of the model folder that are packed."""
    require_packing()
    # Its checksums list the history too.
    names = (*MODEL_FILES, *SEEN_FILES, *BASELINE_FILES, "history.csv")
    return [*(f"{MODEL}/{name}" for name in names), *reading_files(wildcards), *fusion_files(wildcards)]


def used_collections(wildcards):
    """Return the names of the collections that this run trains on or predicts."""
    return list(dict.fromkeys([*PREDICTED, *([] if config["model"]["path"] else training_collections(config))]))


def predict_outputs(wildcards):
    """Return the final files of the collections to predict, and their scores, or why there are none."""
    require_model()
    require_columns()
    require_unseen()
    names = ["cells.parquet", "fields.parquet", "submission.csv", "cells.h5ad", *POOLED]
    files = expand("results/predictions/{collection}/{name}", collection=PREDICTED, name=names)
    files += expand("results/preview/{collection}.html", collection=PREDICTED)
    files += ["results/sheet/rejected.csv", WARNED, SUMMARY, "results/browser/index.html", METRICS]
    return files + expand(
        "results/evaluation/{collection}/{name}.{suffix}",
        collection=SCORED,
        name=EVALUATION_FIGURES,
        suffix=["svg", "png"],
    )


def predict_only_outputs(wildcards):
    """Return the final files of a prediction, after the check that there is a model to predict with."""
    if not config["model"]["path"]:
        refuse(NO_MODEL)
    return [*predict_outputs(wildcards), "results/report.zip"]


@refusing
def hpav23_scores(wildcards):
    """Return the scores of the benchmark, after the check that there are a model and crops to score."""
    require_model()
    require_unseen()
    if not HPAV23:
        refuse(
            "config key collections: hpav23 scores predicted collections whose table of crops (crops) has labels "
            "(labels: true), and there is none; see config/hpav23.yaml"
        )
    return [HPAV23_SCORES, HPAV23_TABLE]


def exported(format):
    """Return the input function of a target: the folder of every shard of the predicted collections in a format."""

    def folders(wildcards):
        require_package(format)
        return [
            path
            for name in PREDICTED
            for path in expand("results/export/{format}/{name}/{shard}", format=format, name=name, shard=SHARDS[name])
        ]

    return folders


def model_for_export(wildcards):
    """Return the files of the model that is written as ONNX."""
    require_package("onnx")
    return model_files(wildcards)


def checked_run(wildcards):
    """Return nothing, after the check that there is a model to predict with and a package that writes a crate."""
    require_package("crate")
    require_model()
    return []


def workflow_code(wildcards):
    """Return the digest of every file of rules and environments, and of the Snakefile, by its path in the workflow."""
    found = [HERE / "Snakefile", *HERE.glob("workflow/rules/*.smk"), *HERE.glob("envs/*.yaml")]
    return {str(path.relative_to(HERE)): digest(path) for path in sorted(found)}
