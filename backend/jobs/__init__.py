"""The queue and the processes that do long work; never imports torch or transformers.

A job is a row; an attempt at it is a small runner process that supervises clean workers and keeps
their events in a file. Runners outlive the program that started them and are found again by name.
"""
