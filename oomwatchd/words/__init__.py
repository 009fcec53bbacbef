"""How amounts, names and sentences are spelled, wherever a person reads them."""
