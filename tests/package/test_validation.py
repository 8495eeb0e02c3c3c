"""Every check of ``validation/`` as a test; the files' names drive the parametrization."""

from __future__ import annotations

import pytest

from validation import interval_checks as intervals
from validation import published_checks as published
from validation import reference_checks as reference
from validation.checks import Check


def _assert_all(found):
    found = list(found)
    assert found
    missed = [
        f"{c.quantity}: ours {c.ours:.10g}, theirs {c.theirs:.10g}, {c.difference:.1e} > {c.tolerance:.0e}"
        for c in found
        if not c.ok
    ]
    assert not missed, "\n".join(missed)


@pytest.mark.parametrize("name", published.STATA)
def test_published_stata(name, dataset):
    dataset("ml_sim")
    _assert_all(published.published_stata(name))


def test_published_lmer():
    _assert_all(published.published_lmer())


@pytest.mark.parametrize("part", [published.stated_optima, published.joint_errors, reference.joint_glmmtmb])
def test_joint_model(part, dataset):
    dataset("ml_sim")
    _assert_all(part())


@pytest.mark.parametrize("name", reference.reference_names())
def test_reference_fit(name, dataset):
    dataset(reference.data_of(name))
    _assert_all(reference.reference_fit(name))


@pytest.mark.parametrize("name", reference.singular_names())
def test_singular_fit(name):
    _assert_all(reference.singular_fits(name))


@pytest.mark.parametrize("name", intervals.small_sample_names())
def test_small_samples(name, dataset):
    dataset(reference.data_of(name))
    _assert_all(intervals.small_samples(name))


def test_there_are_seven_small_samples_and_three_profiles():
    assert len(intervals.small_sample_names()) == 7
    assert len(intervals.profile_names()) == 3


@pytest.mark.parametrize("name", intervals.profile_names())
def test_lme4_profiles(name, dataset):
    dataset("ml_sim")
    _assert_all(intervals.profiles(name))


@pytest.mark.parametrize(
    "part", [intervals.robust, intervals.drops, intervals.monte_carlo, intervals.bootstrap_from_rows]
)
def test_intervals(part, dataset):
    dataset("ml_sim")
    _assert_all(part())


@pytest.mark.parametrize("shift", [1e-3, -1e-3])
def test_a_bent_number_is_noticed(shift):
    """Canary: the checks can fail."""
    good = next(iter(published.published_lmer()))
    bent = Check(
        good.table,
        good.quantity,
        good.ours + 100 * shift,
        good.theirs,
        abs(good.ours + 100 * shift - good.theirs),
        good.tolerance,
        good.printed,
    )
    assert good.ok
    assert not bent.ok
    assert not Check("t", "nan", float("nan"), 1.0, float("nan"), 1.0).ok
