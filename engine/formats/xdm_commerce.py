"""`commerce` and `productListItems`, and the properties that Segment's commerce events have."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

from engine.domain.people.events import Event
from engine.formats.segment_event import identifier
from engine.formats.xdm_fields import at, number_at, object_at, text_at, with_field
from engine.formats.xdm_types import measure_of, type_of

_OF_ONE: Final = frozenset(
    ("Product Added", "Product Removed", "Product Viewed", "Product Added to Wishlist")
)
"""Events of one product, which their properties are."""
_SUMS: Final = {"tax": "taxAmount", "discount": "discountAmount"}
_ITEM: Final = {"name": "name", "currency": "currencyCode", "image_url": "productImageUrl"}


def properties(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """What a commerce record says in the words that rules know: order_id, revenue, currency, products
    with sku, price and quantity."""
    found: dict[str, Any] = {}
    order = object_at(record, "commerce", "order")
    items = [item for item in _list(record.get("productListItems")) if isinstance(item, Mapping)]
    prices = [price for item in items if (price := number_at(item, "priceTotal")) is not None]
    currencies = (text_at(part, "currencyCode") for part in (order, *items))
    found["order_id"] = identifier(order.get("purchaseID"))
    found["currency"] = next((code for code in currencies if code), None)
    total = number_at(order, "priceTotal")
    if total is None and prices and isfinite(sum(prices)):
        total = sum(prices)
    found["revenue" if name == "Order Completed" else "value"] = total
    for own, theirs in _SUMS.items():
        found[own] = number_at(order, theirs)
    found["shipping"] = number_at(record, "commerce", "shipping", "shippingAmount")
    found["cart_id"] = identifier(at(record, "commerce", "cart", "cartID"))
    found["coupon"] = text_at(record, "commerce", "promotionID")
    products = [_product(item) for item in items]
    if products:
        found["products"] = products
        if name in _OF_ONE:
            found |= products[0]
    return {key: value for key, value in found.items() if value is not None}


def fields(event: Event) -> dict[str, Any]:
    """`commerce` and `productListItems` of an event that came by another protocol."""
    told = event.properties
    event_type = type_of(event)
    measure = measure_of(event_type)
    if measure is None or measure[0] != "commerce":
        return {}
    record = with_field({}, measure, {"value": 1})
    order = {
        "purchaseID": identifier(told.get("order_id")) or identifier(told.get("orderId")),
        "priceTotal": next((v for k in ("revenue", "total") if (v := number_at(told, k)) is not None), None),
        "currencyCode": text_at(told, "currency"),
        **{theirs: number_at(told, own) for own, theirs in _SUMS.items()},
    }
    order = {name: value for name, value in order.items() if value is not None}
    if order and event_type in ("commerce.purchases", "commerce.checkouts"):
        record = with_field(record, ("commerce", "order"), order)
    for path, value in (
        (("commerce", "shipping", "shippingAmount"), number_at(told, "shipping")),
        (("commerce", "cart", "cartID"), identifier(told.get("cart_id"))),
        (("commerce", "promotionID"), text_at(told, "coupon")),
    ):
        if value is not None:
            record = with_field(record, path, value)
    products = _list(told.get("products")) or ([told] if event.name in _OF_ONE else [])
    items = [item for product in products if isinstance(product, Mapping) and (item := _item(product))]
    return {**record, "productListItems": items} if items else record


def _product(item: Mapping[str, Any]) -> dict[str, Any]:
    quantity, total = number_at(item, "quantity"), number_at(item, "priceTotal")
    category = at(next(iter(_list(item.get("productCategories"))), None), "categoryName")
    found = {
        "sku": identifier(item.get("SKU")),
        "quantity": quantity,
        "price": total / quantity if total is not None and quantity is not None and quantity >= 1 else total,
        "category": category if isinstance(category, str) else None,
        **{own: text_at(item, theirs) for own, theirs in _ITEM.items()},
    }
    return {name: value for name, value in found.items() if value is not None}


def _item(product: Mapping[str, Any]) -> dict[str, Any]:
    quantity, price = number_at(product, "quantity"), number_at(product, "price")
    whole = int(quantity) if quantity is not None and float(quantity).is_integer() else None
    found = {
        "SKU": identifier(product.get("sku")) or identifier(product.get("product_id")),
        "quantity": whole,
        "priceTotal": None if price is None else _finite(price * (1 if quantity is None else quantity)),
        **{theirs: text_at(product, own) for own, theirs in _ITEM.items()},
    }
    return {name: value for name, value in found.items() if value is not None}


def _finite(value: float) -> float | None:
    return value if isfinite(value) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
