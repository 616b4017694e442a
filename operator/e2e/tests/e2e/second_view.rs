//! A view that is not the product's own, through a failover.
