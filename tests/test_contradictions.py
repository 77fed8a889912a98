"""Conditions that can never be true: found only where no values at all make them so."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.domain.offers.cel_contradictions import Domains, Part, contradiction
from engine.domain.offers.cel_syntax import parse
from engine.domain.offers.expressions import Type, compile_expression
from engine.domain.offers.scope import Scope

NAMES = {"profile": {"n": Type.NUMBER, "m": Type.NUMBER, "s": Type.STRING, "b": Type.BOOL}}
DOMAINS: Domains = {"profile.s": frozenset(("x", "y", "z"))}

NUMBERS = st.sampled_from(("0", "1", "2", "-1"))
COMPARISONS = st.sampled_from(("==", "!=", "<", "<=", ">", ">="))
ATOMS = st.one_of(
    st.builds("profile.{} {} {}".format, st.sampled_from("nm"), COMPARISONS, NUMBERS),
    st.builds("{} {} profile.{}".format, NUMBERS, COMPARISONS, st.sampled_from("nm")),
    st.builds('profile.s {} "{}"'.format, st.sampled_from(("==", "!=")), st.sampled_from("xyz")),
    st.builds('profile.s in ["{}", "{}"]'.format, st.sampled_from("xyz"), st.sampled_from("xyz")),
    st.sampled_from(("profile.b", "!profile.b", "has(profile.n)", "!has(profile.n)", "true", "false")),
)
CONDITIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("({} && {})".format, inner, inner),
        st.builds("({} || {})".format, inner, inner),
        st.builds("!({})".format, inner),
    ),
    max_leaves=8,
)


def values() -> list[Scope]:
    """Every combination that the conditions can tell apart."""
    numbers = (None, -2, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3)
    return [
        Scope(profile={"n": n, "m": m, "s": s, "b": b})
        for n in numbers
        for m in numbers
        for s in (None, "x", "y", "z")
        for b in (None, True, False)
    ]


VALUES = values()


@settings(deadline=None, max_examples=300)
@given(first=CONDITIONS, second=CONDITIONS)
def test_what_is_told_to_be_impossible_is_never_true(first: str, second: str) -> None:
    """And of what is possible, as far as these conditions go, nothing is told."""
    parts = [Part(text, parse(text)) for text in (first, second)]
    compiled = [compile_expression(text, NAMES, expect=Type.BOOL) for text in (first, second)]
    possible = any(all(one.evaluate(scope) is True for one in compiled) for scope in VALUES)
    assert (contradiction(parts, DOMAINS) is None) is possible
