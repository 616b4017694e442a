//! Three managers with real servers: bootstrap, clone, follow, promote, fence.
