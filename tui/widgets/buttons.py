"""How the buttons of full screens look; the safe one and the deed are told apart by the colour of their focus."""

BUTTONS = """
    Button {
        margin-left: 2; height: 1; border: none; min-width: 10; padding: 0 2; tint: transparent;
        background: $bar-rest; color: $foreground; text-style: none;
        &:hover { background: $rule; border: none; }
        &:focus { background: $primary; color: $background; text-style: bold; background-tint: transparent; }
        &#go:focus { background: $accent; }
        &:disabled { color: $quiet; background: $panel; opacity: 100%; text-opacity: 100%; }
        &:ansi { background: ansi_default; color: ansi_default; }
        &:ansi:focus { text-style: bold reverse; }
        &:ansi:disabled { text-style: dim; }
    }
"""
"""To be put inside the block of a screen's own CSS."""
