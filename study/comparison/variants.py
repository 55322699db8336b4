"""Variants of one spec: a preset, with keys of its own, under a name of its own."""

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from ...errors import SpecError
from ..spec.presets import Overrides, overrides_of, with_overrides
from ..spec.search import SIP_PRESETS
from ..spec.study_spec import StudySpec
from ..storage.connection import state_dir

# Sweeps without anything random: further seeds would repeat them.
_FIXED = ("uniform", "task-arithmetic", "ties", "breadcrumbs")
_RANDOM_MASKS = ("dare", "della")


@dataclass(frozen=True)
class Variant:
    """One way to search.

    Args:
        label: As it was asked for.
        preset: Of the sampler.
        overrides: Further keys, by section.
    """

    label: str
    preset: str
    overrides: Overrides = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "Variant":
        """Read `PRESET` or `PRESET:SECTION.KEY=VALUE:...`, with values in YAML.

        Raises:
            SpecError: If a part cannot be read.
        """
        preset, *parts = text.split(":")
        overrides: dict[str, dict[str, Any]] = {}
        for part in parts:
            name, equals, value = part.partition("=")
            section, dot, key = name.partition(".")
            if not (equals and dot and section and key):
                raise SpecError(
                    f"A variant must be PRESET or PRESET:SECTION.KEY=VALUE:..., but got {text!r}."
                )
            try:
                overrides.setdefault(section, {})[key] = yaml.safe_load(value)
            except yaml.YAMLError as error:
                raise SpecError(
                    f"A variant's value must be YAML, but {value!r} of {text!r} is not."
                ) from error
        return cls(text, preset.strip(), overrides)

    @classmethod
    def parse_all(cls, text: str) -> list["Variant"]:
        """Read variants that commas separate, but for commas within brackets.

        Raises:
            SpecError: If one cannot be read.
        """
        depth, parts = 0, [""]
        for sign in text:
            depth += (sign in "[{(") - (sign in ")}]")
            if sign == "," and depth <= 0:
                parts.append("")
            else:
                parts[-1] += sign
        return [cls.parse(part.strip()) for part in parts]

    def seeds(self, asked: list[int]) -> list[int]:
        """Return the seeds that differ: one for a sweep in which nothing is drawn."""
        return asked[:1] if self.preset in _FIXED else asked

    def spec(self, spec: StudySpec, seed: int, suffix: str = "") -> StudySpec:
        """Return the spec of one search; its answers are shared with all of the same spec.

        Args:
            spec: Of the comparison; of its sampler the number of start-up trials is kept, and
                the earlier studies by those who learn from them.
            seed: Of the sampler, and of random masks in sweeps that have them.
            suffix: Of the study's name.
        """
        content = spec.model_dump(mode="json")
        name = f"{spec.study.name}.{_slug(self.label)}.s{seed}{suffix}"
        # All have the budget that was asked for: none ends early.
        content["study"] |= {"name": name, "seed": seed, "stop": None}
        cache = spec.evaluation.cache
        shared = state_dir(spec) / "answers.db"
        content["evaluation"]["cache"] = str(shared.resolve()) if cache is True else cache
        first = spec.sampler.n_startup_trials
        content["sampler"] = {"preset": self.preset, "n_startup_trials": first}
        if self.preset in SIP_PRESETS:
            content["sampler"]["warm_start"] = spec.sampler.warm_start
        if self.preset in _RANDOM_MASKS:
            content["merge"]["seed"] = seed
        lists = sorted(key for key in self.overrides if isinstance(content.get(key), list))
        if lists:
            raise SpecError(
                f"A variant changes keys of a section, but {lists[0]!r} of {self.label!r} is a "
                "list. Write two specs instead."
            )
        content = with_overrides(content, overrides_of(self.preset))
        content = with_overrides(content, self.overrides)
        if content["sampler"].get("startup", "uniform") != "uniform":
            content["evaluation"]["baseline"] = None  # there is no curve to add to
        if content["merge"]["granularity"] != spec.merge.granularity:
            content["merge"]["blocks"] = None
        return StudySpec.parse(content, spec.folder, self.label)


# A file is named after the study, which is named after the variant.
_LONGEST = 80


def _slug(label: str) -> str:
    """Return a label as a part of a study's name; long ones end in a hash."""
    slug = re.sub(r"[^\w.-]+", "-", label)
    if len(slug) <= _LONGEST:
        return slug
    return f"{slug[:_LONGEST]}-{hashlib.sha256(label.encode()).hexdigest()[:8]}"
