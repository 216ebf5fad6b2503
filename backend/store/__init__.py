"""Results on disk and the one database that indexes them; never imports torch or transformers.

The files `home/results/<run_id>.json` are the truth. None ever changes, but that a newer one of the
same run takes the place of one that came with the program. The database beside them answers
questions fast, holds the queue, and can be rebuilt from the files at any time.
"""
