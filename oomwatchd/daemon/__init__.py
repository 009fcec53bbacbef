"""The live watch: a half that hurries, a half that may wait, and the loop that drives them."""
