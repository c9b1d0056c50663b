"""From the updates of a round to the next adapter. Pure: arrays and receipts in, arrays out.

``checks`` says which contributions count, ``mean`` and ``robust`` combine them, ``optimisers`` take
the hub's step with the combination, ``stacking`` joins adapters of different ranks.

Every department counts the same: a weight by its number of records would be a private figure. The
noise is added on each node for that node's own guarantee, so nothing here changes an epsilon.
"""
