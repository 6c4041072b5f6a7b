"""Explanations of results, and comparisons of variants of their proteins.

`requests` checks what is asked for and adds it to the queue, `computing` is what a worker does, `store` finds
and reads analyses, and `routes` shows them. An analysis belongs to a result and is deleted with its job.
"""
