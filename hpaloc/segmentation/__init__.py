"""Segmentation of a field into nuclei and cells: three backends behind one signature, run over shards by Dask."""
