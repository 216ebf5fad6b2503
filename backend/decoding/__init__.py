"""The decode loop, drafters and their verification; knows no weights, no files, no transformers."""
