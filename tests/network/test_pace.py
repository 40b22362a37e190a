"""The pace of a network: measured on enough rows, remembered for a while, told as a price."""

from __future__ import annotations

import pytest

import cutaway
from cutaway.network import Network, pace
from cutaway.network.pace import pace_of


@pytest.fixture
def net(tiny_gpt2) -> Network:
    return cutaway.open(tiny_gpt2)


def test_few_rows_are_run_again_and_a_second_question_runs_nothing(net, monkeypatch):
    monkeypatch.setattr(pace, "_STALE", 1e9)
    tokens, ran, real = net.encode([[1, 2, 3, 4]] * 2), [], type(net).run
    monkeypatch.setattr(type(net), "run", lambda self, rows, **k: ran.append(rows.n) or real(self, rows, **k))
    first = pace_of(net, tokens)
    assert ran[0] == 1
    many = [rows for rows in ran[1:] if rows != 1]
    assert 1 <= len(many) <= 5
    assert set(many) == {272 // 4}
    assert 1 <= len(ran[1:]) - len(many) <= 3  # what a pass takes beside its rows
    assert first.call > 0
    assert first.seconds > 0
    assert first.processor > 0
    del ran[:]
    assert pace_of(net, net.encode([[4, 3, 2, 1]])) is first
    assert ran == []


def test_it_is_measured_again_after_a_while(net, monkeypatch):
    tokens = net.encode([[1, 2, 3, 4]])
    monkeypatch.setattr(pace, "_STALE", 1e-9)
    assert pace_of(net, tokens) is not pace_of(net, tokens)
