"""A build described for people and for machines."""
