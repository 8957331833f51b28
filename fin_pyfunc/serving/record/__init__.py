"""The record: what was asked, what answered and with what, in hash-chained files that show what became of them."""
