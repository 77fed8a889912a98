"""When a provider may be asked, second by second."""

from __future__ import annotations

from engine.app.breaker import Breaker, Pass


def test_it_opens_after_faults_in_a_row_only() -> None:
    breaker = Breaker(faults_to_open=3, open_seconds=10.0)
    for fault in (True, True, False, True, True):
        by = breaker.admit(0.0)
        assert by is Pass.ORDINARY
        if fault:
            assert not breaker.failed(by, 0.0)
        else:
            breaker.answered(by)
    assert breaker.failed(Pass.ORDINARY, 0.0)
    assert breaker.admit(9.9) is None
    assert breaker.wait_seconds(4.0) == 6.0


def test_one_probe_goes_through_and_decides() -> None:
    breaker = Breaker(faults_to_open=1, open_seconds=10.0)
    breaker.failed(Pass.ORDINARY, 0.0)
    assert breaker.admit(10.0) is Pass.PROBE
    assert breaker.admit(10.0) is None
    assert breaker.wait_seconds(10.0) > 0
    breaker.failed(Pass.PROBE, 12.0)
    assert breaker.admit(21.9) is None
    assert breaker.admit(22.0) is Pass.PROBE
    breaker.answered(Pass.PROBE)
    assert breaker.admit(22.0) is Pass.ORDINARY
    assert breaker.wait_seconds(22.0) == 0.0


def test_what_was_under_way_neither_closes_nor_prolongs_it() -> None:
    breaker = Breaker(faults_to_open=1, open_seconds=10.0)
    assert breaker.failed(Pass.ORDINARY, 0.0)
    assert not breaker.failed(Pass.ORDINARY, 8.0)
    breaker.answered(Pass.ORDINARY)
    assert breaker.wait_seconds(8.0) == 2.0


def test_a_stop_holds_for_its_own_time() -> None:
    breaker = Breaker(faults_to_open=9, open_seconds=1.0)
    assert breaker.stop(Pass.ORDINARY, 0.0, 60.0)
    assert not breaker.stop(Pass.ORDINARY, 5.0, 60.0)
    assert breaker.admit(64.9) is None
    assert breaker.admit(65.0) is Pass.PROBE
