"""Segmentation of a field into nuclei and cells: three backends behind one signature, run over shards by Dask."""

from hpaloc.segmentation.backends import BACKENDS, COLOURS_OF, check_settings, segment_field
from hpaloc.segmentation.shards import TooManyRejected, segment_shard

__all__ = ["BACKENDS", "COLOURS_OF", "TooManyRejected", "check_settings", "segment_field", "segment_shard"]
