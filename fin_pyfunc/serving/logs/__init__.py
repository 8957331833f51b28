"""The log: as text for people, or one JSON object a line for machines."""
