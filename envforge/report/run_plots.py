"""The curves of a run, drawn by plotly.

It needs no numpy; its script goes into the page, which is then one file that works offline; and in
a narrow window it lays the axes out anew, where a picture would shrink its letters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from envforge.training.record import Attempt, RunRecord
from envforge.training.series import Point

MOST_POINTS = 2000
"""Of one curve; more make a page slow and show nothing more."""

COLOURS = {
    "finished": "#2f9e63",
    "cancelled": "#8a8f98",
    "preempted": "#8a8f98",
    "gpu-oom": "#d9822b",
    "host-oom": "#d9822b",
    "shm": "#d9822b",
    "open-files": "#d9822b",
    "diverged": "#c64bb3",
    "hang": "#7a6be0",
    "engine-lost": "#7a6be0",
}
FAILED = "#d64545"
LINES = ("#3b82d6", "#e08a2e", "#2f9e63", "#c64bb3", "#7a6be0", "#12a5a5", "#d64545", "#8a8f98")
_MARGIN = {"l": 56, "r": 16, "t": 12, "b": 44}
_GRID = "rgba(128,128,128,0.22)"


def losses_figure(record: RunRecord, points: Sequence[Point]) -> Any:
    """Each loss over the steps; every attempt begins where its checkpoint was."""
    import plotly.graph_objects as go  # noqa: PLC0415 -- half a second, and only for a page

    figure = go.Figure()
    names = list(dict.fromkeys(name for point in points for name in point.losses))
    for number, name in enumerate(names):
        for attempt in range(len(record.attempts)):
            own = thin([one for one in points if one.attempt == attempt and name in one.losses])
            figure.add_scatter(
                x=[one.step for one in own],
                y=[one.losses[name] for one in own],
                name=name,
                legendgroup=name,
                showlegend=attempt == _first_with(points, name),
                mode="lines",
                opacity=1 if attempt == len(record.attempts) - 1 else 0.55,
                line={"color": LINES[number % len(LINES)], "width": 1.6},
                hovertemplate=f"{name} %{{y:.4g}} at step %{{x}}, attempt {attempt + 1}"
                "<extra></extra>",
            )
    for each in record.attempts[1:]:
        if each.first_iteration:
            figure.add_vline(each.first_iteration, line_width=1, line_dash="dot",
                             line_color="#8a8f98")  # fmt: skip
    figure.update_layout(_layout("step", "loss", height=360))
    figure.update_layout(updatemenus=[_scale_menu()])
    return figure


def _first_with(points: Sequence[Point], name: str) -> int:
    return min(point.attempt for point in points if name in point.losses)


def _scale_menu() -> dict[str, Any]:
    buttons = [
        {"label": scale, "method": "relayout", "args": [{"yaxis.type": scale}]}
        for scale in ("linear", "log")
    ]
    return {
        "buttons": buttons, "type": "buttons", "direction": "right", "x": 1, "xanchor": "right",
        "y": 1.0, "yanchor": "bottom", "pad": {"b": 4}, "bgcolor": "rgba(128,128,128,0.12)",
        "borderwidth": 0, "font": {"size": 11}, "showactive": False,
    }  # fmt: skip


def attempts_figure(record: RunRecord) -> Any:
    """Every attempt as a bar on the time axis, in the colour of its end."""
    import plotly.graph_objects as go  # noqa: PLC0415

    figure = go.Figure()
    for number, attempt in enumerate(record.attempts, 1):
        reason = attempt.reason or "running"
        begun, ended = _moment(attempt.started), _moment(attempt.ended or attempt.started)
        # a bar without a width is not seen
        lasted_ms = max((ended - begun).total_seconds() * 1000, 500)
        figure.add_bar(
            x=[lasted_ms],
            base=[begun],
            y=[f"{number}"],
            orientation="h",
            marker_color=COLOURS.get(reason, FAILED),
            text=[reason],
            textposition="auto",
            insidetextanchor="middle",
            showlegend=False,
            hovertext=[f"attempt {number}: {reason}<br>{'<br>'.join(attempt.because)}"],
            hoverinfo="text",
        )
    layout = _layout("", "attempt", height=110 + 34 * len(record.attempts))
    figure.update_layout(layout, barmode="overlay", bargap=0.3)
    figure.update_xaxes(type="date")
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


_USE = (
    ("card busy", "gpu", 100, "%"),
    ("processors busy", "machine_cpu", 100, "%"),
    ("waiting for disks", "waiting", 100, "%"),
    ("read from disks", "read_mib_s", 1, "MiB/s"),
    ("memory on the card", "gpu_memory_mib", 1, "MiB"),
    ("memory of the machine", "memory_mib", 1, "MiB"),
)


def use_figure(points: Sequence[Point]) -> Any:
    """What the training used of the machine, one row a thing, over one time axis."""
    from plotly.subplots import make_subplots  # noqa: PLC0415

    shown = [row for row in _USE if any(getattr(point, row[1]) is not None for point in points)]
    titles = [f"{title}, {unit}" for title, _, _, unit in shown]
    figure = make_subplots(
        rows=len(shown), cols=1, shared_xaxes=True, subplot_titles=titles, vertical_spacing=0.06
    )
    for row, (title, field, scale, unit) in enumerate(shown, 1):
        own = thin([point for point in points if getattr(point, field) is not None])
        figure.add_scatter(
            x=[datetime.fromtimestamp(point.at, timezone.utc) for point in own],
            y=[getattr(point, field) * scale for point in own],
            mode="lines",
            fill="tozeroy",
            line={"color": LINES[(row - 1) % len(LINES)], "width": 1.2},
            showlegend=False,
            hovertemplate=f"{title} %{{y:.4g}} {unit}<extra></extra>",
            row=row,
            col=1,
        )
        top = 100 if scale == 100 else None  # noqa: PLR2004 -- a share
        figure.update_yaxes(range=[0, top] if top else None, rangemode="tozero", row=row, col=1)
    figure.update_layout(_layout("", "", height=80 + 105 * len(shown)))
    figure.update_layout(margin={**_MARGIN, "t": 34})
    figure.update_annotations(font_size=12, x=0, xanchor="left")
    figure.update_xaxes(gridcolor=_GRID, zeroline=False)
    figure.update_yaxes(gridcolor=_GRID, zeroline=False, nticks=4)
    return figure


def _layout(x: str, y: str, *, height: int) -> dict[str, Any]:
    axis = {"gridcolor": _GRID, "zeroline": False, "automargin": True}
    return {
        "height": height,
        "margin": _MARGIN,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "#8a8f98"},
        "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        "xaxis": {**axis, "title": {"text": x}},
        "yaxis": {**axis, "title": {"text": y}},
        "hoverlabel": {"align": "left"},
    }


def thin(points: Sequence[Point], most: int = MOST_POINTS) -> Sequence[Point]:
    """Leave out points evenly, never the last; a value that was no number always stays."""
    if len(points) <= most:
        return points
    stride = -(-len(points) // most)
    last = len(points) - 1
    return [
        point
        for number, point in enumerate(points)
        if number % stride == 0 or number == last or None in point.losses.values()
    ]


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def as_div(figure: Any) -> str:
    """The figure as a part of a page that has plotly's script already."""
    text: str = figure.to_html(
        full_html=False, include_plotlyjs=False,
        config={"displaylogo": False, "responsive": True, "displayModeBar": False},
    )  # fmt: skip
    return text


def script() -> str:
    """Plotly's own script, 4.8 MB, for the page's head."""
    from plotly.offline import get_plotlyjs  # noqa: PLC0415

    text: str = get_plotlyjs()
    return text


def reason_colour(attempt: Attempt) -> str:
    """The colour that stands for an attempt's end, in bars and tables alike."""
    return COLOURS.get(attempt.reason or "", FAILED)


def losses_of(points: Iterable[Point]) -> list[Point]:
    """Those points that hold losses."""
    return [point for point in points if point.losses]


def uses_of(points: Iterable[Point]) -> list[Point]:
    """Those points that hold use of the machine."""
    return [point for point in points if point.cpu is not None]
