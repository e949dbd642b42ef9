//! A stand-in for OpenNebula's `oned`, for tests and the lab: stateful, XML-RPC over HTTP,
//! with faults on demand. Kept honest by recordings of a real one.
