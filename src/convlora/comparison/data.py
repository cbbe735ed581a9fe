"""Look at a study's data sets before its first run: a mistyped path must not become a failure of every method."""

from __future__ import annotations

from collections.abc import Iterable

from convlora.comparison.plan import Run
from convlora.data.readers.finding import find_data
from convlora.data.samples import Sample
from convlora.data.sampling.splitting import split_samples
from convlora.data.sampling.subsets import subset_size
from convlora.errors import ConvloraError, DataError


def check_data_sets(runs: Iterable[Run], *, tuned: bool) -> None:
    """Find and split the images of the runs that shall be made, without reading them.

    Args:
        runs: Those of one data set, subset and number of images are looked at once.
        tuned: Whether a learning rate is picked, which takes validation images.

    Raises:
        DataError: The files of a data set cannot be used, there are too few for its split, or none is left to test on
            or to pick the learning rate by.
        SettingsError: The settings of a data set contradict each other or its files.
    """
    samples: dict[object, list[Sample]] = {}
    groups = {(run.cell.group.dataset, run.cell.group.subset, run.settings.train_images): run.settings for run in runs}
    for (dataset, subset, _), settings in groups.items():
        try:
            if dataset not in samples:
                samples[dataset] = find_data(settings).samples
            splits = split_samples(samples[dataset], settings)
            subset_size(len(splits["train"]), settings)
            if not splits["test"]:
                raise DataError("no images are set aside as test, so there is nothing to compare on.")
            if tuned and not splits["val"]:
                raise DataError(
                    "no images are set aside as val, by which the learning rate would be picked; set some aside, or "
                    "give one learning rate."
                )
        except ConvloraError as error:
            raise type(error)(f"{' · '.join(filter(None, (dataset, subset)))}: {error}") from error
