"""What encoding returns: `LinearCodes` or `ClusterCodes`, each defined beside its scheme, each with `decode()`.

Common to both: `bits`, `shape`, `axis`, `scheme`, `groups`, `parameter_counts`, `unsigned()` and `decode()`.
"""

from lowbit.schemes.clusters import ClusterCodes
from lowbit.schemes.linear import LinearCodes

Codes = LinearCodes | ClusterCodes

__all__ = ["ClusterCodes", "Codes", "LinearCodes"]
