"""Which addresses are on the public internet, and so may be reached at the request of a model; pure."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address

#: Translation to IPv4 (RFC 6052), whose last 32 bits are the address meant.
_NAT64 = IPv6Network("64:ff9b::/96")
#: All that IANA has given out for the public internet, without what only carries IPv4 or is for one network.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
#: What only some versions of Python know to be reserved: for protocols (RFC 6890), and for documentation.
_RESERVED = (IPv4Network("192.0.0.0/24"), IPv6Network("3fff::/20"))


def why_not_public(address: Address) -> str | None:
    """What kind of address it is, in words, where it is none of the public internet; else None.

    An IPv6 address that carries an IPv4 one (mapped, 6to4, NAT64) is what that is.
    """
    if isinstance(address, IPv6Address) and (inner := _carried(address)) is not None:
        return why_not_public(inner)
    for kind, holds in (
        ("an unspecified", address.is_unspecified),
        ("a loopback", address.is_loopback),
        ("a link-local", address.is_link_local),
        ("a multicast", address.is_multicast),
    ):
        if holds:
            return f"{kind} address"
    outside = isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST
    reserved = outside or any(address in network for network in _RESERVED) or not address.is_global
    return "a private or reserved address" if reserved else None


def _carried(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that packets to ``address`` would go to in the end."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
