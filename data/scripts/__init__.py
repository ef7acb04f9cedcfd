"""Scripts: who says what, and which call is right after which word; no audio yet."""
