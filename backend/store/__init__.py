"""Results on disk and the one database that indexes them; never imports torch or transformers.

The files `home/results/<run_id>.json` are the truth, and immutable. The database beside them
answers questions fast, holds the queue, and can be rebuilt from the files at any time.
"""
