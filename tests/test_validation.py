"""Every check of ``validation/`` as a test; the files' names drive the parametrization."""

from __future__ import annotations

import pytest

from validation import checks

STATA = ("stata_y_x_ml", "stata_m_x_ml", "stata_y_mx_ml", "stata_bpg_reml")


def _assert_all(found):
    found = list(found)
    assert found
    missed = [
        f"{c.quantity}: ours {c.ours:.10g}, theirs {c.theirs:.10g}, {c.difference:.1e} > {c.tolerance:.0e}"
        for c in found
        if not c.ok
    ]
    assert not missed, "\n".join(missed)


@pytest.mark.parametrize("name", STATA)
def test_published_stata(name, dataset):
    dataset("ml_sim")
    _assert_all(checks.published_stata(name))


def test_published_lmer():
    _assert_all(checks.published_lmer())


@pytest.mark.parametrize("part", [checks.stated_optima, checks.joint_errors, checks.joint_glmmtmb])
def test_joint_model(part, dataset):
    dataset("ml_sim")
    _assert_all(part())


@pytest.mark.parametrize("name", checks.reference_names())
def test_reference_fit(name, dataset):
    dataset(checks.data_of(name))
    _assert_all(checks.reference_fit(name))


@pytest.mark.parametrize("name", checks.singular_names())
def test_singular_fit(name):
    _assert_all(checks.singular_fits(name))


@pytest.mark.parametrize("shift", [1e-3, -1e-3])
def test_a_bent_number_is_noticed(shift):
    """Canary: the checks can fail."""
    good = next(iter(checks.published_lmer()))
    bent = checks.Check(
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
    assert not checks.Check("t", "nan", float("nan"), 1.0, float("nan"), 1.0).ok
