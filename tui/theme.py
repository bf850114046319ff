"""How the app looks: a dark and a light theme, and one for 16 colours; every state is a word and a sign first.

Hues run from blue to orange and magenta, so that colour-blind eyes and terminals without colour lose nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from rich.console import Console
from rich.segment import Segment
from textual import constants
from textual.color import Color
from textual.filter import LineFilter
from textual.theme import Theme

from backends.model import Level

DARK = Theme(
    name="mastovault",
    primary="#7cc0f5",
    secondary="#4f7fae",
    warning="#f5a95f",
    error="#ff6f9f",
    success="#7cc0f5",
    accent="#f5a95f",
    foreground="#d9e1ea",
    background="#0e131a",
    surface="#0e131a",
    panel="#19222d",
    dark=True,
    variables={
        "quiet": "#8595a8",
        "rule": "#33445a",
        "level-crit": "#ff6f9f",
        "level-high": "#ff9f45",
        "level-med": "#e8cf8e",
        "level-low": "#a9b7c8",
        "level-ok": "#7cc0f5",
        "level-unkn": "#c3a6ff",
        "cursor-row": "#24354a",
        "cursor-row-blurred": "#1a2532",
        "bar-rest": "#3a4d64",
        "scrollbar": "#33445a",
        "scrollbar-hover": "#4f7fae",
        "scrollbar-active": "#7cc0f5",
        "scrollbar-background": "#141b24",
        "scrollbar-background-hover": "#141b24",
        "scrollbar-background-active": "#141b24",
        "ansi-background": "#0e131a",
        "ansi-foreground": "#d9e1ea",
        "border": "#7cc0f5",
        "border-blurred": "#33445a",
        "footer-key-foreground": "#f5a95f",
    },
)

LIGHT = Theme(
    name="mastovault-light",
    primary="#1f5f99",
    secondary="#4f7fae",
    warning="#a4560a",
    error="#b3124f",
    success="#1f5f99",
    accent="#a4560a",
    foreground="#1c2733",
    background="#f7f9fb",
    surface="#f7f9fb",
    panel="#e6ecf2",
    dark=False,
    variables={
        "quiet": "#5c6b7c",
        "rule": "#b7c4d2",
        "level-crit": "#b3124f",
        "level-high": "#a4560a",
        "level-med": "#74590b",
        "level-low": "#4c5b6b",
        "level-ok": "#1f5f99",
        "level-unkn": "#6336b5",
        "cursor-row": "#d3e3f3",
        "cursor-row-blurred": "#e6ecf2",
        "bar-rest": "#d0dae4",
        "scrollbar": "#b7c4d2",
        "scrollbar-hover": "#4f7fae",
        "scrollbar-active": "#1f5f99",
        "scrollbar-background": "#eef2f6",
        "scrollbar-background-hover": "#eef2f6",
        "scrollbar-background-active": "#eef2f6",
        "ansi-background": "#f7f9fb",
        "ansi-foreground": "#1c2733",
        "border": "#1f5f99",
        "border-blurred": "#b7c4d2",
        "footer-key-foreground": "#a4560a",
    },
)

ANSI = Theme(
    name="mastovault-ansi",
    ansi=True,
    primary="ansi_cyan",
    secondary="ansi_blue",
    warning="ansi_yellow",
    error="ansi_magenta",
    success="ansi_cyan",
    accent="ansi_yellow",
    foreground="ansi_default",
    background="ansi_default",
    surface="ansi_default",
    panel="ansi_default",
    boost="ansi_default",
    dark=True,
    variables={
        "quiet": "ansi_default",
        "rule": "ansi_default",
        "level-crit": "ansi_magenta",
        "level-high": "ansi_yellow",
        "level-med": "ansi_default",
        "level-low": "ansi_default",
        "level-ok": "ansi_cyan",
        "level-unkn": "ansi_default",
        "cursor-row": "ansi_default",
        "cursor-row-blurred": "ansi_default",
        "bar-rest": "ansi_default",
        "ansi-background": "ansi_default",
        "ansi-foreground": "ansi_default",
        "border": "ansi_cyan",
        "border-blurred": "ansi_default",
        "footer-key-foreground": "ansi_yellow",
    },
)

THEMES = (DARK, LIGHT, ANSI)

_STYLES: Mapping[str, str] = {
    "": "",
    "strong": "bold",
    "quiet": "$quiet",
    "rule": "$rule",
    "accent": "$accent",
    "key": "bold $accent",
    "off": "$rule",
    "title": "bold $primary",
    "crit": "bold reverse $level-crit",
    "high": "bold $level-high",
    "med": "$level-med",
    "low": "$level-low",
    "ok": "$level-ok",
    "unkn": "bold $level-unkn",
    "bad": "bold $level-crit",
    "warn": "$level-high",
    "run": "$primary",
    "bar": "$primary",
    "bar-rest": "$bar-rest",
    "flag": "bold reverse $accent",
    "cursor": "bold $accent",
}
# With 16 colours the quiet words can only be told apart by brightness, and some terminals lack even that.
_ANSI_STYLES: Mapping[str, str] = {**_STYLES, "quiet": "dim", "rule": "dim", "off": "dim", "bar-rest": "dim"}


def styles(ansi: bool) -> Mapping[str, str]:
    """The names that the widgets use for styles, and what Textual makes of them."""
    return _ANSI_STYLES if ansi else _STYLES


LEVELS: Mapping[Level, tuple[str, str]] = {
    Level.CRIT: ("CRIT ▲▲", "crit"),
    Level.HIGH: ("HIGH ▲", "high"),
    Level.MED: ("MED •", "med"),
    Level.LOW: ("LOW ·", "low"),
    Level.OK: ("OK ✓", "ok"),
    Level.UNKN: ("UNKN ?", "unkn"),
}
"""Word and sign of every level, with the name of its style."""

_PLAIN = str.maketrans(
    {
        "▲": "!",
        "•": "*",
        "·": ".",
        "✓": "+",
        "✗": "x",
        "–": "-",
        "—": "-",
        "…": ".",
        "›": ">",
        "↓": "v",
        "↑": "^",
        "→": ">",
        "◆": "*",
        "▌": "|",
        "█": "#",
        "░": ".",
        "▁": "_",
        "▂": "_",
        "▃": "-",
        "▄": "-",
        "▅": "=",
        "▆": "=",
        "▇": "#",
        "⏎": ">",
        "⌫": "<",
        "▶": ">",
        "○": "o",
        "●": "@",
        "─": "-",
        "━": "-",
        "│": "|",
        "┃": "|",
        "╭": "+",
        "╮": "+",
        "╰": "+",
        "╯": "+",
        "┌": "+",
        "┐": "+",
        "└": "+",
        "┘": "+",
        "├": "+",
        "┤": "+",
        "▔": "-",
        "▎": "|",
        "▊": "|",
        "▍": "|",
        "▏": "|",
        "▕": "|",
        "�": "?",
    }
)


def plain(text: str) -> str:
    """A text with every sign of ours as one ASCII character of the same width."""
    return text if text.isascii() else text.translate(_PLAIN)


class PlainSigns(LineFilter):
    """Replaces our signs in everything that is drawn, borders included (`--ascii`)."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Translate one line."""
        return [Segment(plain(text), style, control) for text, style, control in segments]


def few_colours() -> bool:
    """Whether the terminal has 16 colours only, or colour is not wanted (NO_COLOR)."""
    if "NO_COLOR" in os.environ:
        return True
    console = Console(color_system=constants.COLOR_SYSTEM, force_terminal=True, legacy_windows=False)  # type: ignore[arg-type]
    return console.color_system == "standard"
