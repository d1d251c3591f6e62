"""The words everyone shares: small frozen structs, spelled on the wire as Docker spells them."""
