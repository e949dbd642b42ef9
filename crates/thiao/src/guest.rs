//! Thiao's own guest as OpenNebula's VM template.

/// The VM template. Attributes as in OpenNebula 7.4: `src/vm/VirtualMachineParser.cc` (`OS`, `FILE`),
/// `src/vmm/LibVirtDriverKVM.cc` (`MACHINE`, the context CD's bus, `RAW`).
pub(crate) const TEMPLATE: &str = include_str!("guest/thiao-guest.one");
