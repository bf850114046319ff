"""Whether something can still be drawn."""

from __future__ import annotations

from textual.widget import Widget


def stands(widget: Widget) -> bool:
    """Whether a widget is mounted with its children, and not being taken away.

    Textual 8.2 takes the children of a screen away one by one and the screen last, while timers and answers still come
    in; `_pruning` is what it goes by itself (textual/signal.py), and there is no public name for it.
    """
    return widget.is_mounted and widget.is_attached and not widget._pruning
