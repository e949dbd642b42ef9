//! Our own stand-in for OpenNebula's oned 7.4: stateful, with faults on demand.

pub mod machines;
