"""`POST /v1/decide` over HTTP: what an app is told to show, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import uuid4

from engine.formats.segment import BODY_BYTES_MAX
from tests import served
from tests.lanes import RULES
from tests.served import SERVER_KEY, fetch, until

OFFERS = RULES.replace(
    b"offers:",
    b"""offers:
  hello:
    purpose: marketing
    message:
      in_app: {placement: home_hero, title: {en: Hello, fr: Salut}, body: "{{ profile.orders }}", deeplink: "app://x"}
  tip: {purpose: marketing, message: {in_app: {placement: foot, title: A tip}}}""",
).replace(
    b"rules:",
    b"""rules:
  open: {when: {screen: Home}, offers: [hello, tip], cap: {times: 2, per: 1d}}
  seen: {when: Offer Shown, if: event.offer == "hello", offer: thanks}""",
)


def home(user: str = "ada", **fields: Any) -> dict[str, Any]:
    return {"type": "screen", "userId": user, "name": "Home", "messageId": uuid4().hex, **fields}


def consent(user: str) -> dict[str, Any]:
    return {
        "type": "identify",
        "userId": user,
        "messageId": uuid4().hex,
        "traits": {"consent": {"marketing": True}},
        "context": {
            "locale": "fr-FR",
            "consent": {"categoryPreferences": {"marketing": True}},
            "device": {"id": f"{user}-phone", "type": "android", "token": f"token-{user}"},
        },
    }


def test_an_app_asks_what_to_show(postgres: str, tmp_path: Path) -> None:
    served.write_workspace(tmp_path / "rules", rules=OFFERS)
    with served.database(postgres, "test_decide") as dsn, served.serve(tmp_path, dsn) as engine:
        app, server = engine.client(), engine.client(SERVER_KEY)
        assert app.post("/v1/batch", json={"batch": [consent("ada")]}).status_code == 200

        ask = {"event": home(), "placements": ["home_hero", "foot"], "limit": 3}
        answer = app.post("/v1/decide", json=ask)
        assert answer.status_code == 200, answer.text
        assert answer.headers["access-control-allow-origin"] == "*"
        hello, tip = answer.json()["decisions"]
        assert hello["placement"] == "home_hero"
        assert hello["message"] == {"title": "Salut", "body": "0", "deeplink": "app://x"}
        assert (tip["offer"], tip["outcome"], tip["placement"]) == ("tip", "offered", "foot")
        assert "reason" not in tip

        again = app.post("/v1/decide", json=ask).json()["decisions"]  # the same message: the same answer
        assert [d["id"] for d in again] == [hello["id"], tip["id"]]
        (one,) = app.post("/v1/decide", json={**ask, "event": home(), "limit": 1}).json()["decisions"]
        assert one["placement"] == "home_hero"

        for shown in (hello, one):
            told = {
                "type": "track",
                "userId": "ada",
                "event": "Offer Shown",
                "messageId": uuid4().hex,
                "properties": {"decision": shown["id"]},
            }
            pushed = server.post("/v1/batch", json={"batch": [told]}).json()["decisions"]
            assert [(d["rule"], d["channel"], d["outcome"]) for d in pushed] == [("seen", "push", "offered")]
        full = server.post("/v1/decide", json={**ask, "event": home()}).json()["decisions"]
        assert [(d["rule"], d["reason"], d["channel"]) for d in full] == [("open", "capped", "in_app")] * 2
        assert app.post("/v1/decide", json={**ask, "event": home()}).json() == {"decisions": []}

        (facts,) = fetch(
            dsn,
            "SELECT facts FROM events WHERE message_id = $1",
            ask["event"]["messageId"],  # type: ignore[index]
        )
        assert '"placements":["home_hero","foot"]' in facts["facts"]
        until(lambda: fetch(dsn, "SELECT FROM decisions WHERE outcome = 'offered'"), 10, "decisions")


def test_what_cannot_be_decided_is_said(postgres: str, tmp_path: Path) -> None:
    with served.database(postgres, "test_decide_faults") as dsn, served.serve(tmp_path, dsn) as engine:
        app, nobody = engine.client(), engine.client(None)

        def asked(body: Any, client: Any = app) -> tuple[int, str]:
            answer = (
                client.post("/v1/decide", content=body)
                if isinstance(body, bytes)
                else (client.post("/v1/decide", json=body))
            )
            return answer.status_code, answer.json()["code"]

        assert asked({"event": home()}, nobody) == (401, "unknown_key")
        assert asked(b"{") == (400, "unreadable")
        assert asked(b"[]") == (400, "unreadable")
        assert asked({"placements": ["hero"]}) == (400, "unreadable")
        assert asked({"event": home(), "placements": "hero"}) == (400, "unreadable")
        assert asked({"event": home(), "limit": 0}) == (400, "unreadable")
        assert asked({"event": {"type": "track", "event": "x"}}) == (400, "missing_identity")
        assert asked({"event": {**home(), "type": "scream"}}) == (400, "unknown_type")
        assert asked({"event": 7}) == (400, "not_an_object")
        assert asked(b" " * (BODY_BYTES_MAX + 1)) == (413, "too_large")
        preflight = nobody.options("/v1/decide", headers={"origin": "https://shop.example"})
        assert preflight.status_code == 204
        assert b"POST" in preflight.headers["access-control-allow-methods"].encode()
        assert app.get("/v1/decide").status_code == 405
