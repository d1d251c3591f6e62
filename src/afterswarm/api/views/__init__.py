"""Objects as Docker shows them."""
