"""Croissant 1.1 metadata of a corpus of traces, with the fields of its RAI extension, as JSON-LD.

Croissant: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html. Files are named relative to the metadata,
each shard with its sha256; `mlcroissant validate --jsonld RUN/croissant.json` checks it, and `mlcroissant load` reads
the traces.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from genloop.reading import read_json

VERSION = "http://mlcommons.org/croissant/1.1"
LICENSES = {  # SPDX names -> where they are written down; others stay as they are
    "CC0-1.0": "https://creativecommons.org/publicdomain/zero/1.0/",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "MIT": "https://opensource.org/license/mit",
}
_FIELDS = {  # name -> (what of the file, transform, what it is)
    "id": ("filename", {"regex": r"^(.*)\.json$"}, "Key of the trace in its shard."),
    "trace": (
        "content",
        None,
        "The trace, as JSON: id, split, instruction, intent, scene, rounds (features, diagnosis, actions, "
        "effect, accepted, texts), final_prompt, messages, license, provenance.",
    ),
}
_RAI: Mapping[str, str | list[str]] = {
    "dataCollection": "Images are drawn or read, faults are put in on purpose, every number is measured on pixels.",
    "dataCollectionType": ["Software Collection"],
    "dataCollectionMissingData": "clip_similarity is null where no encoder was asked; no other value is missing.",
    "dataImputationProtocol": "None: nothing is imputed.",
    "dataPreprocessingProtocol": ["Images are upright RGB in 8 bits, of one size, stored as PNG."],
    "dataManipulationProtocol": (
        "Faults of exposure, contrast, colour, noise, sharpness and content are put in at known severities; "
        "corrections are executed on pixels, and a correction that makes an image worse is marked as not accepted."
    ),
    "dataAnnotationProtocol": [
        "Diagnoses follow from measured features by fixed thresholds, issues of content from the scene that was drawn.",
        "Texts are made of templates; each quoted number is the stored one at its printed precision.",
    ],
    "dataAnnotationPlatform": ["genloop build_irg"],
    "dataAnnotationAnalysis": ["genloop verify reads every text against its numbers and each image against its hash."],
    "annotationsPerItem": "1",
    "annotatorDemographics": ["None: no person annotated anything."],
    "machineAnnotationTools": ["genloop: rules of genloop/data/irg/diagnose.py"],
    "dataBiases": ["Faults are global and synthetic; real images fail locally and in more ways."],
    "dataUseCases": ["Training and testing of models that diagnose images and refine prompts."],
    "dataLimitations": [
        "Sentences come from a few templates; wording in test is of other templates, but of the same kind.",
        "A diagnosis is what the thresholds say, not what people prefer.",
    ],
    "dataSocialImpact": "None is expected of drawn scenes; of photographs that of their source applies.",
    "dataReleaseMaintenancePlan": "The corpus is made again, byte for byte, from its config and version of genloop.",
}


def croissant(
    name: str,
    *,
    license: str,
    shards: Sequence[Mapping[str, Any]],
    source: str,
    sensitive: str,
) -> dict[str, Any]:
    """JSON-LD of a run folder: `shards` are rows {"shard", "sha256", "bytes"}; `source` says where images come from.

    `sensitive` says whether they show people. The same arguments give the same metadata: it holds no date.
    """
    rai: Mapping[str, Any] = {**_RAI, "dataCollectionRawData": source, "personalSensitiveInformation": [sensitive]}
    return {
        "@context": read_json(Path(__file__).with_name("context.json")),
        "@type": "sc:Dataset",
        "name": name,
        "description": "Traces of seeing, diagnosing and refining images.",
        "conformsTo": [VERSION, "http://mlcommons.org/croissant/RAI/1.0"],
        "license": LICENSES.get(license, license),
        "citeAs": f"{name}, made by genloop build_irg",
        "keywords": ["image refinement", "image quality", "diagnosis", "text-to-image"],
        "version": "1.0.0",
        **{f"rai:{key}": value for key, value in rai.items()},
        "distribution": _distribution(shards),
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "traces",
                "name": "traces",
                "description": "One row a trace; its images are KEY.0.png, KEY.1.png, ... beside it.",
                "field": [_field(name, *parts) for name, parts in _FIELDS.items()],
            }
        ],
    }


def _distribution(shards: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The shards, and the files in them by kind."""
    tars = [
        {
            "@type": "cr:FileObject",
            "@id": row["shard"],
            "name": row["shard"],
            "contentUrl": f"shards/{row['shard']}",
            "contentSize": f"{row['bytes']} B",
            "encodingFormat": "application/x-tar",
            "sha256": row["sha256"],
        }
        for row in sorted(shards, key=lambda row: str(row["shard"]))
    ]
    contained = [{"@id": tar["@id"]} for tar in tars]
    sets = [
        {
            "@type": "cr:FileSet",
            "@id": name,
            "name": name,
            "cr:containedIn": contained,
            "encodingFormat": encoding,
            "includes": pattern,
        }
        for name, encoding, pattern in (
            ("records", "application/json", "*.json"),
            ("images", "image/png", "*.png"),
            ("instructions", "text/plain", "*.txt"),
        )
    ]
    return tars + sets


def _field(name: str, part: str, transform: Mapping[str, str] | None, description: str) -> dict[str, Any]:
    source: dict[str, Any] = {"fileSet": {"@id": "records"}, "extract": {"fileProperty": part}}
    if transform:
        source["transform"] = transform
    own = {"@type": "cr:Field", "@id": f"traces/{name}", "name": name, "description": description}
    return {**own, "dataType": "sc:Text", "source": source}
