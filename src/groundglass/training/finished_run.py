"""A finished run folder, opened as its network and its model card."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from groundglass.data.splits import Split
from groundglass.errors import ConfigError, ModelError
from groundglass.files import sha256_of
from groundglass.inference.density_rules import CONSOLIDATION_HU, DENSITY_CLASSES
from groundglass.inference.model_card import ModelCard, TrainedOn
from groundglass.training.config import read_stored_config
from groundglass.training.module import LesionModule
from groundglass.training.provenance import read_provenance
from groundglass.training.weights import load_network

INTENDED_USE = (
    "Research on COVID-19 lung disease in chest CT of adults: lesion masks and burden for study cohorts. "
    "Not a medical device; not for diagnosis or treatment of a patient."
)
LIMITS = (
    "Trained on few patients of few scanners, most of them with lesions; other pneumonias, tumours, fibrosis, "
    "effusion and motion look alike and may be marked.",
    "Two radiologists agree to a Dice of about 0.70 on such lesions; expect no more.",
    "8-bit pictures carry no HU: their intensities are estimated from two tissues.",
)
TERMS = {  # {source: dataset and licence}
    "slices": "MedSeg COVID-19 CT dataset 1, as single slices (Italian Society of Medical and Interventional "
    "Radiology; segmented by MedSeg; one copy used is for non-commercial purposes only)",
    "stack": "MedSeg COVID-19 CT dataset 1 (Italian Society of Medical and Interventional Radiology; "
    "segmented by MedSeg)",
    "volumes": "MedSeg COVID-19 CT dataset 2 (Radiopaedia cases; segmented by MedSeg; one copy used is for "
    "non-commercial purposes only)",
    "coronacases": "coronacases.org via Ma et al., Zenodo 3757476 (CC BY), approximate HU",
}


def open_run(
    run: Path, name: str | None = None, threshold: float | None = None, last_epoch: bool = False
) -> tuple[LesionModule, ModelCard]:
    """Open a finished run.

    Args:
        run: The run folder.
        name: Name for the model card; None for that of the configuration.
        threshold: Probability from which a pixel counts as lesion; None takes the one chosen on the validation part.
        last_epoch: Take the network of the last epoch instead of the run's result, which is that of the best
            validation Dice where there is a validation part.

    Returns:
        The network in evaluation mode, and its card, whose sha256 is that of the checkpoint.

    Raises:
        ModelError: The run is not finished, of an older version, or damaged.
    """
    try:
        config = read_stored_config(run)
        result: dict[str, Any] = json.loads((run / "result.json").read_bytes())
        split = Split.model_validate_json((run / "split.json").read_bytes())
    except FileNotFoundError as error:
        raise ModelError(
            f"{error.filename} does not exist, so {run} is not a finished run: continue it with train --resume"
        ) from error
    except ConfigError as error:
        raise ModelError(str(error)) from error
    except (ValueError, RecursionError) as error:  # of pydantic and json
        raise ModelError(f"{run} is damaged or of an older version: train it again") from error
    provenance = read_provenance(run)
    recorded = provenance.trained_on if provenance else None
    trained_on = recorded or TrainedOn(members=(*split.train, *split.validation))
    sources = sorted({member.split("/")[0] for member in trained_on.members})
    test_cases = {member.partition(":")[0] for member in split.test}
    size, view = config.field.size, config.field.view
    assert size is not None, "with_prepared_settings has set the size"
    assert view is not None, "with_prepared_settings has set the field of view"
    try:
        checkpoint, chosen = run / ("last.ckpt" if last_epoch else result["checkpoint"]), float(result["threshold"])
        scores, sha256 = {"validation": result["validation"]}, sha256_of(checkpoint)
        if not 0 < chosen < 1:
            raise ValueError("no threshold of a probability")
    except (LookupError, TypeError, ValueError, OSError) as error:
        raise ModelError(
            f"{run} is damaged: its result.json, or the checkpoint that it names, is missing or wrong"
        ) from error
    card = ModelCard(
        name=name or config.name,
        sha256=sha256,
        network=asdict(config.network_config),
        window_hu=config.field.window_hu,
        field_of_view=view,
        size=size,
        neighbours_mm=config.field.neighbours_mm,
        classes=config.output_classes,
        consolidation_hu=CONSOLIDATION_HU if config.output_classes[1:] == DENSITY_CLASSES else None,
        threshold=chosen if threshold is None else threshold,
        training_data=tuple(TERMS.get(source, f"{source}: a collection of the trainer's own") for source in sources),
        trained_on=recorded,
        never_trained_on=tuple(sorted(case for case in test_cases if not trained_on.holds(case))),
        scores=scores,
        intended_use=INTENDED_USE,
        limits=LIMITS,
    )
    return load_network(checkpoint, config.network_config), card
