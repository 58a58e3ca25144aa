"""How long something takes, in words."""

from __future__ import annotations


def duration_text(seconds: float) -> str:
    """``41 s``, ``12 min 05 s``, ``3 h 07 min``, ``2 d 04 h``."""
    whole = max(0, round(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days} d {hours % 24:02} h"
    if hours:
        return f"{hours} h {minutes % 60:02} min"
    return f"{minutes} min {whole % 60:02} s" if minutes else f"{whole} s"
