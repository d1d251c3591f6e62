"""Container options that Docker's service API has no field for, said as labels of the service (docs/labels.md)."""
