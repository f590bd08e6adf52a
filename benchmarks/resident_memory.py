"""Resident memory of this process, as Linux tells it."""

from pathlib import Path


def read(field: str) -> int:
    """Bytes of resident memory: VmRSS now, VmHWM at the peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {field}: this needs Linux.")


def forget_peak() -> None:
    """Sets the peak back to what is held now."""
    Path("/proc/self/clear_refs").write_text("5")
