"""What to allow in which firewall, in the words and commands of each system."""

from __future__ import annotations

from typing import Final

_SYSTEMS: Final = {
    "win32": (
        "Windows: as administrator, netsh advfirewall firewall add rule name=clusterofone dir=in action=allow "
        "profile=private,domain protocol={upper} localport={port}"
    ),
    "darwin": (
        "macOS: allow Python in System Settings > Network > Firewall > Options, and under Privacy & Security > Local Network"
    ),
    "linux": "Linux: sudo ufw allow {port}/{lower}, or sudo firewall-cmd --add-port={port}/{lower}",
}


def let_in(port: int, protocol: str = "TCP", *, platform: str | None = None) -> str:
    """Return how to let a port in, on one system, or on each where it is not known which one it is."""
    shown = [platform] if platform in _SYSTEMS else list(_SYSTEMS)
    told = "; ".join(
        _SYSTEMS[name].format(upper=protocol, lower=protocol.lower(), port=port) for name in shown
    )
    return f"let {protocol} port {port} in ({told})"
