"""Messages: the person's language, what is missing, and what people put into their own names."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.app.rendering import render_push
from engine.domain.offers.decisions import Message
from engine.formats.messages import MOST_BYTES, TemplateError, choose, compile_template
from tests.story import CAFE, NOON, Story, event, fix, rule_set, someone

WORKSPACE = """
traits: {first_name: {type: string}, visits: {type: number}}
computed:
  orders: {count: Order Completed}
  tier: {steps: orders, from: {bronze: 0, silver: 1}}
"""


def rules(push: str) -> str:
    return f"""
geofences:
  cafe: {{circle: {{lat: 52.66, lng: -8.62, radius: 60}}, properties: {{name: "The Mill & Sons", store: s1}}}}
offers:
  gift: {{purpose: marketing, tags: [b, a], message: {{push: {push}}}}}
rules:
  wish: {{when: Wish, offer: gift}}
  cafe: {{when: {{enter: {{fence: cafe}}}}, offer: gift}}
"""


def sent(push: str, told: Any = None, *before: Any, locale: str | None = None) -> Message:
    """What the winner's push says."""
    story = Story(rule_set(rules(push), WORKSPACE), someone(locale=locale))
    for earlier in before:
        story.tell(earlier)
    story.tell(told or event())
    assert story.verdict is not None
    (sending,) = story.verdict.sends
    return render_push(sending.candidate, story.profile.locale)


def named(name: object) -> Any:
    return event(at=NOON, traits={"first_name": name})


# Languages

GREETINGS = "{title: {en: Hello, fr: Bonjour, pt-BR: Oi, de: Hallo}, body: {de: d, en: e, fr: f, pt-BR: p}}"


@pytest.mark.parametrize(
    ("locale", "title", "body"),
    [
        ("fr", "Bonjour", "f"),
        ("fr-CA", "Bonjour", "f"),
        ("fr_CA", "Bonjour", "f"),
        ("FR-ca", "Bonjour", "f"),
        ("pt-BR", "Oi", "p"),
        ("pt_br", "Oi", "p"),
        ("pt-PT", "Oi", "p"),  # Portuguese of Brazil is nearer than English
        ("pt", "Oi", "p"),
        ("en-IE", "Hello", "e"),
        ("it-IT", "Hello", "d"),  # the first one is for everyone else
        ("frr", "Hello", "d"),  # North Frisian is not French
        ("x", "Hello", "d"),
        ("-", "Hello", "d"),
        (None, "Hello", "d"),
    ],
)
def test_the_persons_language_or_the_first(locale: str | None, title: str, body: str) -> None:
    message = sent(GREETINGS, locale=locale)
    assert (message.title, message.body) == (title, body)


def test_an_exact_tag_comes_before_its_language() -> None:
    push = "{title: {en: Hello, fr: Bonjour, fr-CA: Allô}, body: b}"
    titles = [sent(push, locale=tag).title for tag in ("fr-CA", "fr-FR", "fr", "en")]
    assert titles == ["Allô", "Bonjour", "Bonjour", "Hello"]


def test_the_language_is_the_newest_that_the_phone_said() -> None:
    to_french = event("Open", NOON - timedelta(hours=1), context={"locale": "fr-CA"})
    assert sent(GREETINGS, event(), to_french).title == "Bonjour"
    assert sent(GREETINGS, event(context={"locale": "de-AT"}), to_french).title == "Hallo"
    for junk in (7, None, "", ["fr"], {}):
        assert sent(GREETINGS, event(context={"locale": junk}), to_french).title == "Bonjour"


def test_one_text_is_for_everyone() -> None:
    texts = {"": compile_template("Hi")}
    assert choose(texts, "fr-CA")({}) == choose(texts, None)({}) == "Hi"


# What is missing

HELLO = '{title: "Hi {{ profile.first_name | default: \'friend\' }}!", body: "{{ profile.first_name }} x"}'


@pytest.mark.parametrize("name", [None, "", 7, True, ["Ada"], {"a": 1}])
def test_what_is_missing_or_of_another_type_has_its_default(name: object) -> None:
    message = sent(HELLO, named(name))
    assert (message.title, message.body) == ("Hi friend!", "x")


def test_what_is_known_is_shown() -> None:
    message = sent(HELLO, named("Ada"))
    assert (message.title, message.body) == ("Hi Ada!", "Ada x")


def test_a_trait_that_was_taken_away_is_missing_again() -> None:
    known = event("Open", NOON - timedelta(hours=1), traits={"first_name": "Ada"})
    assert sent(HELLO, event(), known).title == "Hi Ada!"
    assert sent(HELLO, named(None), known).title == "Hi friend!"


def test_no_variable_at_all_is_missing_quietly() -> None:
    title = "{{ event.properties.a.b.c }}{{ weather.temp_c | plus: 1 }}{{ geofence.name | default: '-' }}"
    assert sent(f'{{title: "{title}", body: b}}').title == "1-"


def test_a_place_its_properties_and_the_moment() -> None:
    push = (
        '{title: "{{ geofence.name }} {{ geofence.id }} {{ geofence.store }}", '
        "body: \"{{ local.time }} {{ local.weekday }} {{ now | date: '%d.%m.' }} {{ 'now' | date: '%H' }}\", "
        'deeplink: "app://o/{{ event.properties.ref | url_encode }}?n={{ geofence.name | url_encode }}"}'
    )
    message = sent(push, fix(CAFE, NOON, properties={"ref": "a b/c&d"}))
    assert message.title == "The Mill & Sons cafe s1"
    assert message.body == "12:00 mon 12.01. 12"
    assert message.deeplink == "app://o/a+b%2Fc%26d?n=The+Mill+%26+Sons"


def test_no_message_reads_the_clock() -> None:
    template = compile_template("[{{ now }}{{ today }}{{ 'now' | date: '%Y' }}{{ 'today' | date: '%Y' }}]")
    assert template({}) == "[]"
    assert template({"now": NOON}) == "[2026-01-12 12:00:00+00:0020262026]"


def test_what_the_event_itself_changed_is_shown() -> None:
    push = '{title: "{{ profile.orders }} {{ profile.tier }}", body: b}'
    story = Story(rule_set(rules(push).replace("when: Wish", "when: Order Completed"), WORKSPACE))
    story.tell(event("Order Completed"))
    assert story.verdict is not None
    (sending,) = story.verdict.sends
    assert render_push(sending.candidate, None).title == "1 silver"


def test_an_offers_own_time_to_live() -> None:
    for ttl, expected in ((", ttl: 30m", 30), ("", 240)):
        story = Story(rule_set(rules(f"{{title: t, body: b{ttl}}}")))
        assert story.ask(event()).expires_at == NOON + timedelta(minutes=expected)


# Hostile names

HOSTILE = [
    "{{ profile.tier }}",
    "{{ 7 | times: 7 }}",
    "{% for i in (1..1000000) %}x{% endfor %}",
    "{{",
    "}} {{ event.traits }} {{",
    "{% raw %}",
    "{% include 'secrets' %}",
    "%7B%7Bnow%7D%7D",
    "<b onload='alert(1)'>&amp;\"",
    "' | default: '",
    "{{ '{{ profile.tier }}' }}",
    "${jndi:ldap://x}",
    "%s%n%(name)s{0}",
    "{#",
    "\\{\\{ 1 }}",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_never_read_as_a_template(name: str) -> None:
    message = sent('{title: "Hi {{ profile.first_name }}", body: "[{{ event.properties.x }}]"}', named(name))
    assert message.title == f"Hi {name}"
    again = sent('{title: t, body: "[{{ event.properties.x }}]"}', event(properties={"x": name}))
    assert again.body == f"[{name}]"


@pytest.mark.parametrize("filtered", ["capture", "assign", "join", "loop", "append", "replace"])
def test_not_even_on_a_detour(filtered: str) -> None:
    """Through variables, loops and filters a value stays a value."""
    name = "{{ profile.tier }}"
    template = {
        "capture": "{% capture x %}{{ profile.first_name }}{% endcapture %}{{ x }}",
        "assign": "{% assign x = profile.first_name %}{{ x }}",
        "join": "{{ profile.first_name | split: '~' | join: '' }}",
        "loop": "{% for x in event.properties.names %}{{ x }}{% endfor %}",
        "append": "{{ '{' | append: '{ profile.tier }' | append: '}' }}",
        "replace": "{{ '[[ profile.tier ]]' | replace: '[', '{' | replace: ']', '}' }}",
    }[filtered]
    rendered = compile_template(template)(
        {"profile": {"first_name": name, "tier": "gold"}, "event": {"properties": {"names": [name]}}}
    )
    assert rendered == name


def test_the_author_decides_how_a_value_is_escaped() -> None:
    values = {"profile": {"first_name": '<b>"O\'Neil" & co</b> é'}}
    plain = compile_template("{{ profile.first_name }}")(values)
    assert plain == values["profile"]["first_name"]  # a push is text, not HTML
    assert compile_template("{{ profile.first_name | escape }}")(values).startswith("&lt;b&gt;")
    assert compile_template("{{ profile.first_name | url_encode }}")(values) == (
        "%3Cb%3E%22O%27Neil%22+%26+co%3C%2Fb%3E+%C3%A9"
    )


@pytest.mark.parametrize(
    "path",
    [
        "profile.__class__",
        "profile.first_name.__class__",
        "profile.first_name.__init__.__globals__",
        "profile['__class__']",
        "event.keys",
        "now.__class__",
    ],
)
def test_nothing_of_python_shows(path: str) -> None:
    rendered = compile_template(f"[{{{{ {path} }}}}]")(
        {"profile": {"first_name": "Ada"}, "event": {}, "now": NOON}
    )
    assert rendered == "[]"


@pytest.mark.parametrize("tag", ["include 'x'", "render 'x'", "tablerow x in y"])
def test_what_could_read_files_is_refused(tag: str) -> None:
    with pytest.raises(TemplateError):
        compile_template(f"{{% {tag} %}}")


# Bounds


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in (1..100000000) %}xxxxxxxxxx{% endfor %}",
        "{% for i in (1..1000) %}{% for j in (1..1000) %}xxxxxxxxxx{% endfor %}{% endfor %}",
        "{{ profile.long }}",
        "{{ profile.long | append: profile.long | append: profile.long }}",
        "{% assign x = 'xxxxxxxx' %}{% for i in (1..60) %}{% assign x = x | append: x %}{% endfor %}{{ x }}",
        "{{ 9 | times: 1e308 | times: 1e308 }}{{ 1 | divided_by: 0 }}",
        "{{ profile.long | replace: '', profile.long }}",
    ],
)
def test_a_message_has_a_bound_whatever_it_does(template: str) -> None:
    rendered = compile_template("Hi " + template)({"profile": {"long": "é" * 100_000}})
    assert rendered.startswith("Hi")
    assert len(rendered.encode()) <= MOST_BYTES


def test_a_part_that_fails_leaves_the_rest() -> None:
    rendered = compile_template("Hi {{ 1 | divided_by: 0 }}{{ profile.name }}, come in")(
        {"profile": {"name": "Ada"}}
    )
    assert rendered == "Hi Ada, come in"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
EVERYTHING = compile_template(
    "A{{ x }}{{ x | default: 'd' }}{{ x | upcase }}{{ x | date: '%H:%M' }}{{ x | times: 3 }}"
    "{{ x | round: 2 }}{{ x | first }}{{ x | size }}{{ x | join: ',' }}{{ x | truncate: 9 }}"
    "{% for i in x %}{{ i }}{% endfor %}"
    "{% if x > 3 %}m{% endif %}{% case x %}{% when 1 %}o{% endcase %}{{ x.y.z }}{{ x[0] }}Z"
)


@settings(max_examples=150, deadline=None)
@given(values)
def test_rendering_never_fails(value: object) -> None:
    rendered = EVERYTHING({"x": value})
    assert rendered.startswith("A")
    assert len(rendered.encode()) <= MOST_BYTES


def test_a_value_is_not_changed_by_showing_it() -> None:
    shown = {"x": [3, 1, 2], "y": {"z": [1]}}
    compile_template("{{ x | sort | join: ',' }}{{ x | reverse }}{{ y.z | concat: x }}")(shown)
    assert shown == {"x": [3, 1, 2], "y": {"z": [1]}}
