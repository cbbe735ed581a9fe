"""How classes and brightness are spread over images and splits, and masks that are the wrong way round."""

from __future__ import annotations

from statistics import median

import numpy as np

from convlora.data.findings.finding import Finding, Survey
from convlora.data.samples import SPLITS, counted, first_few
from convlora.data.settings import BACKGROUND

_RARE = 0.002  # of the foreground's pixels
_FEW_IMAGES = 3
_DARK = 24  # levels; the brightest part of a picture that was stored in a few of its bits only
_BRIGHTER = 2.5  # standard deviations of the training images' brightness
_LEAST_SPREAD = 5.0  # levels, where the training images are all alike
_FEWEST = 3  # images of a split that say something about its brightness


def rare_classes(survey: Survey) -> list[Finding]:
    """Classes of hardly any pixels, or in hardly any image of the train split."""
    train = [survey.class_pixels(name) for name in survey.members("train")]
    if survey.labels.num_classes < 3 or len(train) <= 2 * _FEW_IMAGES:
        return []
    pixels = {i: sum(counts.get(i, 0) for counts in train) for i in range(1, survey.labels.num_classes)}
    images = {i: sum(i in counts for counts in train) for i in pixels}
    names = survey.labels.id2label
    findings = []
    total = sum(pixels.values())
    if rare := [i for i, count in pixels.items() if 0 < count < _RARE * total]:
        listed = first_few([f"{names[i]} ({100 * pixels[i] / total:.2g} %)" for i in rare])
        have = counted(len(rare), "class has", "classes have")
        text = f"{have} less than {100 * _RARE:g} % of the foreground's pixels in training: {listed}"
        remedy = "Weigh them up in the loss with --class_weights balanced, or add images that show them."
        findings.append(Finding("rare-class", "notable", text, remedy))
    if seldom := [i for i, count in images.items() if 0 < count < _FEW_IMAGES]:
        listed = first_few([f"{names[i]} ({images[i]})" for i in seldom])
        are = counted(len(seldom), "class is", "classes are")
        text = f"{are} in fewer than {_FEW_IMAGES} training images: {listed}"
        remedy = "Add images that show them, or show these more often with --oversample class."
        findings.append(Finding("seldom-class", "notable", text, remedy))
    return findings


def unscored_classes(survey: Survey) -> list[Finding]:
    """A val or test split that lacks the foreground, or some classes that are trained."""
    held = {split: {c for name in survey.members(split) for c in survey.class_pixels(name)} for split in SPLITS}
    trained = held["train"] - {0}
    findings = []
    for split in SPLITS[1:]:
        missing = sorted(trained - held[split])
        if not missing or not survey.members(split):
            continue
        if survey.splits_given:
            remedy = f"Move images that show them to {split} where the splits are listed."
        else:
            remedy = f"Draw other splits with --split_seed 1, 2 …, or a larger one with --{split}_fraction."
        if not held[split] & trained:
            scores = "the best checkpoint is picked by chance" if split == "val" else "its scores say nothing"
            text = f"no mask of {split} holds any class but the background, so {scores}"
            findings.append(Finding("no-foreground", "harmful", text, remedy))
        else:
            listed = first_few([survey.labels.id2label[i] for i in missing])
            are = counted(len(missing), "trained class is", "trained classes are")
            text = f"{are} in no mask of {split}, so it has no scores of them: {listed}"
            findings.append(Finding("unscored-class", "notable", text, remedy))
    return findings


def empty_masks(survey: Survey) -> list[Finding]:
    """All masks, or more than half of them, without an object: training sees nothing, or little else."""
    empty = [name for name in survey.measured if set(survey.class_pixels(name)) == {0}]
    if len(empty) <= len(survey.measured) / 2:
        return []
    if len(empty) == len(survey.measured):
        text = f"all {len(empty)} masks hold background only, so there is nothing to learn"
        remedy = "Give the folder with the masks that were drawn with --masks; see whether their export is complete."
        return [Finding("empty", "harmful", text, remedy, tuple(empty))]
    text = f"{len(empty)} of {len(survey.measured)} masks hold background only, more than half: {first_few(empty)}"
    remedy = "If objects were not drawn there, remove these images; else show the others more: --oversample class."
    return [Finding("mostly-empty", "notable", text, remedy, tuple(empty))]


def inverted_masks(survey: Survey) -> list[Finding]:
    """Masks of two classes whose foreground is what the others call background."""
    if survey.labels.num_classes != 2:
        return []
    frames, contrasts = {}, {}
    for name, item in survey.measured.items():
        tones = {survey.classes_of(value): tone for value, tone in item.tones.items()}
        if {(0,), (1,)} <= tones.keys():
            contrasts[name] = tones[1,] - tones[0,]
            frames[name] = survey.frame_share(name)
    if len(frames) < 4:
        return []
    usual, sign = median(frames.values()), np.sign(median(contrasts.values()))
    wrong = [
        name
        for name in frames
        if contrasts[name] * sign < 0 and frames[name] > 0.5 and survey.foreground_share(name) > 0.5
    ]
    right = sum(contrasts[name] * sign > 0 for name in frames)
    if not wrong or usual > 0.5 or len(wrong) + right < 0.9 * len(frames):  # else the contrast says nothing
        return []
    text = (
        f"{len(wrong)} of {len(frames)} masks look inverted: their foreground is most of the image and "
        f"{'darker' if sign > 0 else 'brighter'} than the rest, unlike that of the others: {first_few(wrong)}"
    )
    return [Finding("inverted", "harmful", text, "Swap 0 and the foreground's value in these masks.", tuple(wrong))]


def all_inverted(survey: Survey) -> list[Finding]:
    """Nearly all masks of two classes with a foreground that surrounds the background."""
    if survey.labels.num_classes != 2 or len(survey.measured) < 4:
        return []
    frames = [survey.frame_share(name) for name in survey.measured]
    shares = [survey.foreground_share(name) for name in survey.measured]
    if median(frames) < 0.7 or median(shares) < 0.7:
        return []
    text = (
        f"in most masks the foreground runs along the border of the image and fills {100 * median(shares):.0f} % of it"
    )
    stored = {"ids": 1, "binary": 255}.get(survey.labels.encoding) if survey.settings.classes is None else None
    swap = f"say --class_map 0={survey.labels.classes[1]},{stored}={BACKGROUND}"
    remedy = f"If 0 marks the objects, {swap if stored else 'swap 0 and the value of the foreground'}."
    return [Finding("foreground-around", "hint", text, remedy)]


def dark_images(survey: Survey) -> list[Finding]:
    """Images that use the lowest levels only, such as 12 bits stored in 16."""
    dark = [n for n, item in survey.measured.items() if 0 < item.thumbnail.max() < _DARK]
    if len(dark) < max(1, 0.05 * len(survey.measured)):
        return []
    dark_ones = f"{len(dark)} of {len(survey.measured)} images are nearly black"
    text = f"{dark_ones}, below {_DARK} of 255 everywhere: {first_few(dark)}"
    remedy = (
        "Files of more than 8 bits are stretched with --intensity percentile; if 12 bits were saved as 8, save them "
        "again with all of theirs."
    )
    return [Finding("nearly-black", "harmful", text, remedy, tuple(dark))]


def brightness_shift(survey: Survey) -> list[Finding]:
    """A split that is much brighter or darker than the train split."""
    brightness = {s: np.array([survey.measured[n].brightness for n in survey.members(s)]) for s in SPLITS}
    train = brightness["train"]
    if len(train) < 2 * _FEWEST:
        return []
    findings = []
    for split in SPLITS[1:]:
        own = brightness[split]
        spread = max(float(train.std()), _LEAST_SPREAD)
        if len(own) < _FEWEST or abs(own.mean() - train.mean()) < _BRIGHTER * spread:
            continue
        ratio = min(1.0, abs(own.mean() / max(float(train.mean()), 1.0) - 1))
        if ratio <= survey.brightness_changes:
            continue
        text = (
            f"images of {split} have a mean brightness of {own.mean():.0f}, those of train of {train.mean():.0f} ± "
            f"{train.std():.0f}, so scores are about other images than training sees"
        )
        remedy = f"If that is not meant, mix the splits; else train with --augmentation.brightness {ratio:.1g}."
        findings.append(Finding("brightness", "notable", text, remedy))
    return findings
