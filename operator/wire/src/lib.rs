//! What observers, instance managers and the operator say to each other. Pure.
