"""A federation on several machines: the homes of hub and node, and the processes they keep running."""
