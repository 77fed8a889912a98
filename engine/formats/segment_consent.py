"""What an event says of consent, in any of the places where SDKs put it, taken out of its free-form parts."""

from __future__ import annotations

from typing import Any

_PREFIX = "consent."
_WORDS = {"granted": True, "denied": False, "true": True, "false": False}


def take_preferences(context: dict[str, Any]) -> dict[str, bool]:
    """Take `context.consent.categoryPreferences` out, by name; what is neither yes nor no is left out."""
    consent = context.get("consent")
    if type(consent) is not dict:
        return {}
    preferences = consent.get("categoryPreferences")
    if type(preferences) is not dict:
        return {}
    del consent["categoryPreferences"]
    if not consent:
        del context["consent"]
    return _statements(preferences)


def take_consent_ids(context: dict[str, Any], consent: dict[str, bool]) -> None:
    """Move RudderStack's `consentManagement.{allowedConsentIds,deniedConsentIds}` over to `consent`. Each
    is a list, or for OneTrust an object whose keys are the ids; what is said both ways is denied."""
    managed = context["consentManagement"]
    if type(managed) is not dict:
        return
    for field, granted in (("allowedConsentIds", True), ("deniedConsentIds", False)):
        ids = managed.pop(field, None)
        for name in ids if isinstance(ids, list | dict) else ():
            if isinstance(name, str):
                consent[name] = granted and consent.get(name, True)
    if not managed:
        del context["consentManagement"]


def take_consent_traits(traits: dict[str, Any], consent: dict[str, bool]) -> None:
    """Move `consent: {name: …}` and `consent.name: …` from `traits` over to `consent`."""
    nested = traits.get("consent")
    if type(nested) is dict:
        del traits["consent"]
        consent.update(_statements(nested))
    flat = [key for key in traits if key.startswith(_PREFIX)]
    consent.update(_statements({key.removeprefix(_PREFIX): traits.pop(key) for key in flat}))


def _statements(preferences: dict[str, Any]) -> dict[str, bool]:
    stated = {name: _granted(value) for name, value in preferences.items()}
    return {name: value for name, value in stated.items() if value is not None}


def _granted(value: Any) -> bool | None:
    if type(value) is bool:
        return value
    return _WORDS.get(value.lower()) if type(value) is str else None
