"""Where each tool result comes from: which call, which file and lines, what kind of output."""

from sluice.compressor.provenance.calls import decode_arguments, read_call, strings
from sluice.compressor.provenance.origins import Origins, Segment
from sluice.compressor.provenance.shell import read_command
from sluice.compressor.provenance.types import Kind, Provenance, same_path

__all__ = [
    "Kind",
    "Origins",
    "Provenance",
    "Segment",
    "decode_arguments",
    "read_call",
    "read_command",
    "same_path",
    "strings",
]
