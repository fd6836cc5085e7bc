//! Tests of the fleet.
