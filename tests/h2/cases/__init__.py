"""All cases: one for each of h2spec 2.6.0, with the one that it only runs when it is told to be strict."""

from cases import exchanges, field_compression, frame_definitions, frame_layout, starting, streams

CASES = [
    *starting.CASES,
    *frame_layout.CASES,
    *streams.CASES,
    *frame_definitions.CASES,
    *exchanges.CASES,
    *field_compression.CASES,
]
